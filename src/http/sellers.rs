//! `/v1/sellers`: what each seller was paid and owes.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{Given, Id, Query};
use super::page::{Limit, PageQuery, TextCursor};
use super::problem::Problem;
use super::stream::{self, Shape};
use super::{ApiState, unknown};
use crate::ledger::{Ledger, ReversalView, SellerDebt, SellerLine, SellerView};
use crate::lines::Lines;

/// The parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    debt: Given<SellerDebt>,
    format: Given<Shape>,
    limit: Given<Limit>,
    cursor: Given<TextCursor>,
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
/// In the order of their ids, with what each was paid and owes in each currency. With `format=csv` or `ndjson` all that match are
/// answered, one line for each seller and currency.
#[utoipa::path(
    get,
    path = "/v1/sellers",
    tag = "sellers",
    operation_id = "listSellers",
    params(
        ("debt" = Option<SellerDebt>, Query, description = "Only sellers with such debts."),
        ("format" = Option<String>, Query, description = "`json` (a page), `csv` or `ndjson` (all rows)."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page, or all rows.", content((SellerPage = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    if let Some(Shape::Lines(format)) = query.format.0 {
        return lines(&state.ledger, query.debt.0, format).await;
    }
    let after = query.cursor.0.map(|TextCursor(id)| id);
    let limit = query.limit.0.unwrap_or_default().rows();
    let (sellers, next_cursor) = state.ledger.find_sellers(query.debt.0, after, limit).await?;
    Ok(Json(SellerPage { sellers, next_cursor }).into_response())
}

/// All that match, line by line.
pub(crate) async fn lines(ledger: &Ledger, debt: Option<SellerDebt>, lines: Lines) -> Result<Response, Problem> {
    let ledger = ledger.clone();
    let next = move |after| {
        let ledger = ledger.clone();
        async move {
            let (found, next) = ledger.find_sellers(debt, after, stream::PAGE).await?;
            Ok((found.into_iter().flat_map(SellerView::into_lines).collect(), next))
        }
    };
    stream::all::<SellerLine, _, _>(lines, "sellers", next).await
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
    responses((status = 200, description = "The seller.", body = SellerDetails)),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    Id(id): Id,
    Query(query): Query<PageQuery>,
) -> Result<Json<SellerDetails>, Problem> {
    let seller = state.ledger.seller(&id).await?.ok_or_else(|| unknown("seller", &id))?;
    let (after, limit) = query.after_and_limit();
    let (reversals, next_cursor) = state.ledger.reversals_of_seller(&id, after, limit).await?;
    Ok(Json(SellerDetails { seller, reversals, next_cursor }))
}
