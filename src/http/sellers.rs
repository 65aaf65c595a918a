//! `/v1/sellers`: what each seller was paid and owes.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{Id, Query, parameter};
use super::page::{Cursor, Limit, TextCursor};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{ReversalView, SellerDebt, SellerView};

/// The parameters of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(default, deserialize_with = "parameter")]
    debt: Option<SellerDebt>,
    #[serde(default, deserialize_with = "parameter")]
    limit: Option<Limit>,
    #[serde(default, deserialize_with = "parameter")]
    cursor: Option<TextCursor>,
}

/// The parameters of one seller's reversals.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowQuery {
    #[serde(default, deserialize_with = "parameter")]
    limit: Option<Limit>,
    #[serde(default, deserialize_with = "parameter")]
    cursor: Option<Cursor>,
}

/// Sellers, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SellerPage {
    /// At most `limit`.
    sellers: Vec<SellerView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<String>,
}

/// A seller with its reversals.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SellerDetails {
    #[serde(flatten)]
    seller: SellerView,
    /// The reversals of its transfers, newest first, at most `limit`.
    reversals: Vec<ReversalView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Sellers, a page at a time
///
/// In the order of their ids, with what each was paid and owes in each currency.
#[utoipa::path(
    get,
    path = "/v1/sellers",
    tag = "sellers",
    operation_id = "listSellers",
    params(
        ("debt" = Option<SellerDebt>, Query, description = "Only sellers with such debts."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "A page.", body = SellerPage),
        (status = 400, description = "A parameter is unknown, or its value can't be used."),
    ),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<SellerPage>, Problem> {
    let limit = query.limit.unwrap_or_default();
    let after = query.cursor.as_ref().map(|TextCursor(id)| id.as_str());
    let found = state.ledger.list_sellers(query.debt, after, limit.and_one()).await?;
    let (sellers, next_cursor) = limit.cut(found, |seller| seller.seller_id.clone());
    Ok(Json(SellerPage { sellers, next_cursor }))
}

/// A seller
///
/// What it was paid and owes in each currency, and the reversals of its transfers, a page at a time.
#[utoipa::path(
    get,
    path = "/v1/sellers/{id}",
    tag = "sellers",
    operation_id = "getSeller",
    params(
        ("id" = String, Path, description = "The marketplace's id.", example = "s1"),
        ("limit" = Option<u64>, Query, description = "The most reversals; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "The seller.", body = SellerDetails),
        (status = 400, description = "A parameter is unknown, or its value can't be used."),
    ),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    Id(id): Id,
    Query(query): Query<ShowQuery>,
) -> Result<Json<SellerDetails>, Problem> {
    let seller = state.ledger.seller(&id).await?.ok_or_else(|| unknown("seller"))?;
    let limit = query.limit.unwrap_or_default();
    let after = query.cursor.map(|Cursor(id)| id);
    let found = state.ledger.reversals_of_seller(&id, after, limit.and_one()).await?;
    let (reversals, next_cursor) = limit.cut(found, |reversal| reversal.id);
    Ok(Json(SellerDetails { seller, reversals, next_cursor }))
}
