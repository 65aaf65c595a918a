//! What the routes about refunds and those about disputes share.

use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::extract::Given;
use super::operator::OperatorRequest;
use super::page::{Currency, Cursor, Limit, Order, Time, Yes, YesNo, recorded};
use super::problem::Problem;
use super::stream::{self, Shape};
use super::{ApiState, unknown};
use crate::ledger::{ClaimFilter, ClaimKind, ClaimLine, ClaimStatus, Ledger, RefundView};
use crate::lines::Lines;

/// The parameters of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    status: Given<ClaimStatus>,
    currency: Given<Currency>,
    attention: Given<Yes>,
    acknowledged: Given<YesNo>,
    since: Given<Time>,
    until: Given<Time>,
    order: Given<Order>,
    pub(super) format: Given<Shape>,
    limit: Given<Limit>,
    cursor: Given<Cursor>,
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
    query: &ListQuery,
) -> Result<(Vec<RefundView>, Option<Uuid>), Problem> {
    let limit = query.limit.0.unwrap_or_default().rows();
    let after = query.cursor.0.as_ref().map(|Cursor(id)| *id);
    Ok(state.ledger.find_claims(kind, &query.filter(), after, limit).await?)
}

/// All of them, line by line.
pub(crate) async fn lines(
    ledger: &Ledger,
    kind: ClaimKind,
    filter: ClaimFilter,
    lines: Lines,
) -> Result<Response, Problem> {
    let ledger = ledger.clone();
    let next = move |after| {
        let (ledger, filter) = (ledger.clone(), filter.clone());
        async move {
            let (found, next) = ledger.find_claims(kind, &filter, after, stream::PAGE).await?;
            Ok((found.into_iter().map(ClaimLine::from).collect(), next))
        }
    };
    stream::all::<ClaimLine, _, _>(lines, &format!("{kind}s"), next).await
}

impl ListQuery {
    pub(super) fn filter(&self) -> ClaimFilter {
        ClaimFilter {
            status: self.status.0,
            currency: self.currency.0.as_ref().map(|Currency(code)| code.clone()),
            needs_attention: self.attention.0.is_some(),
            acknowledged: self.acknowledged.0.as_ref().map(|YesNo(is_so)| *is_so),
            recorded: recorded(self.since.0, self.until.0),
            oldest: self.order.0 == Some(Order::Oldest),
        }
    }
}

pub(super) async fn show(state: &ApiState, kind: ClaimKind, id: &str) -> Result<RefundView, Problem> {
    state.ledger.claim(kind, id).await?.ok_or_else(|| unknown(&kind.to_string(), id))
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
