//! What the routes about refunds and those about disputes share.

use serde::Deserialize;
use uuid::Uuid;

use super::extract::parameter;
use super::operator::OperatorRequest;
use super::page::{Cursor, Limit};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{ClaimKind, ClaimStatus, RefundView};

/// The parameters of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(default, deserialize_with = "parameter")]
    status: Option<ClaimStatus>,
    #[serde(default, deserialize_with = "parameter")]
    limit: Option<Limit>,
    #[serde(default, deserialize_with = "parameter")]
    cursor: Option<Cursor>,
}

/// What an operator decides about a claim.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    Accept,
    Acknowledge,
    Withdraw,
}

/// A page, and the cursor to the next one.
pub(super) async fn list(
    state: &ApiState,
    kind: ClaimKind,
    query: ListQuery,
) -> Result<(Vec<RefundView>, Option<Uuid>), Problem> {
    let limit = query.limit.unwrap_or_default();
    let after = query.cursor.map(|Cursor(id)| id);
    let found = state.ledger.list_claims(kind, query.status, after, limit.and_one()).await?;
    Ok(limit.cut(found, |claim| claim.id))
}

pub(super) async fn show(state: &ApiState, kind: ClaimKind, id: &str) -> Result<RefundView, Problem> {
    state.ledger.claim(kind, id).await?.ok_or_else(|| unknown(&kind.to_string()))
}

pub(super) async fn decide(
    state: &ApiState,
    kind: ClaimKind,
    id: &str,
    decision: Decision,
    body: &OperatorRequest,
) -> Result<RefundView, Problem> {
    let id = show(state, kind, id).await?.id.to_string();
    match decision {
        Decision::Accept => state.ledger.accept_claim(&id, body.note()).await?,
        Decision::Acknowledge => state.ledger.acknowledge_claim(&id, body.note()).await?,
        Decision::Withdraw => state.ledger.withdraw_claim(&id, body.note()).await?,
    };
    show(state, kind, &id).await
}
