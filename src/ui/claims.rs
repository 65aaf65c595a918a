//! `/ui/refunds` and `/ui/disputes`.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use sea_orm::Iterable;
use uuid::Uuid;

use super::Ui;
use super::act::{Verb, button};
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{ROWS, ago, filters, input, matching, moment, no_rows, pages, select, status, story, table};
use super::input::{Asked, Csv, Currency, Yes, YesNo};
use super::money::money;
use super::operations::bulk;
use super::page::{Page, Refusal};
use super::session::Session;
use crate::http::claims::lines;
use crate::http::{Cursor, Order, recorded};
use crate::ledger::{ClaimFilter, ClaimKind, ClaimStatus, LedgerError, OperationAction, RefundView, ReversalStatus};
use crate::lines::Lines;

/// `GET /ui/refunds`.
pub(super) async fn refunds(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    asked: Asked,
) -> Result<Response, Refusal> {
    list(&ui, &session, asked, ClaimKind::Refund).await
}

/// `GET /ui/disputes`.
pub(super) async fn disputes(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    asked: Asked,
) -> Result<Response, Refusal> {
    list(&ui, &session, asked, ClaimKind::Dispute).await
}

/// The path of the list.
pub(super) const fn path(kind: ClaimKind) -> &'static str {
    match kind {
        ClaimKind::Refund => "/ui/refunds",
        ClaimKind::Dispute => "/ui/disputes",
    }
}

async fn list(ui: &Ui, session: &Session, Asked(mut fields): Asked, kind: ClaimKind) -> Result<Response, Refusal> {
    let filter = ClaimFilter {
        status: fields.parsed("status"),
        currency: fields.parsed("currency").map(|Currency(code)| code),
        needs_attention: fields.parsed::<Yes>("attention").is_some(),
        acknowledged: fields.parsed("acknowledged").map(|YesNo(is_so)| is_so),
        recorded: recorded(fields.parsed("since"), fields.parsed("until")),
        oldest: fields.parsed("order") == Some(Order::Oldest),
    };
    let order = if filter.oldest { "oldest" } else { "" };
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    let as_csv = fields.parsed::<Csv>("format").is_some();
    fields.done()?;
    if as_csv {
        return Ok(lines(&ui.ledger, kind, filter, Lines::Csv).await?);
    }
    let ((found, next), count) =
        tokio::try_join!(ui.ledger.find_claims(kind, &filter, cursor, ROWS), ui.ledger.count_claims(kind, &filter))?;
    let (chosen, currency) = (filter.status.map(|status| status.to_string()), filter.currency.unwrap_or_default());
    let attention = if filter.needs_attention { "yes" } else { "" };
    let [since, until] = [filter.recorded.since, filter.recorded.until].map(|at| at.map(moment).unwrap_or_default());
    let acknowledged = filter.acknowledged.map(|is_so| if is_so { "yes" } else { "no" });
    let in_url = [
        ("status", chosen.as_deref().unwrap_or_default()),
        ("currency", &currency),
        ("attention", attention),
        ("acknowledged", acknowledged.unwrap_or_default()),
        ("since", &since),
        ("until", &until),
        ("order", order),
    ];
    let choices = html! {
        (select("status", "Status", "any", ClaimStatus::iter(), chosen.as_deref()))
        (input("currency", "Currency", Some(&currency)))
        (select("attention", "Attention", "any", ["yes"], Some(attention)))
        (select("acknowledged", "Acknowledged", "any", ["yes", "no"], acknowledged))
        (input("since", "Reported since: a time, or 24h", Some(&since)))
        (input("until", "Reported before", Some(&until)))
        (select("order", "Order", "newest first", ["oldest"], Some(order)))
    };
    let acknowledged_by = acknowledged_by(ui, &found).await?;
    let mut actions = Vec::new();
    if filter.acknowledged != Some(true) {
        let decides = matches!(filter.status, Some(ClaimStatus::Held | ClaimStatus::Conflicting));
        actions.extend(decides.then_some(OperationAction::AcceptClaims));
        let waits = decides || filter.status == Some(ClaimStatus::Unmatched) || filter.needs_attention;
        actions.extend(waits.then_some(OperationAction::AcknowledgeClaims));
    }
    let (title, one) = titles(kind);
    let body = html! {
        (filters(path(kind), &choices))
        (matching(path(kind), &in_url, &count))
        (bulk(session, &actions, &[&in_url[..], &[("kind", &kind.to_string())]].concat(), found.is_empty()))
        @if found.is_empty() { (no_rows(next.as_ref())) } @else { (rows(session, title, one, &found, &acknowledged_by)) }
        (pages(path(kind), &in_url, cursor.is_none(), next))
    };
    Ok(Page::new(title, body).into_response())
}

/// What the list is called, and one of it.
pub(super) const fn titles(kind: ClaimKind) -> (&'static str, &'static str) {
    match kind {
        ClaimKind::Refund => ("Refunds", "Refund"),
        ClaimKind::Dispute => ("Disputes", "Dispute"),
    }
}

/// Who acknowledged a claim, and why, by its id.
type AcknowledgedBy = HashMap<Uuid, (String, String)>;

async fn acknowledged_by(ui: &Ui, found: &[RefundView]) -> Result<AcknowledgedBy, LedgerError> {
    let acknowledged = found.iter().filter(|claim| claim.acknowledged_at.is_some());
    let ids: Vec<Uuid> = acknowledged.map(|claim| claim.id).collect();
    if ids.is_empty() { Ok(HashMap::new()) } else { ui.ledger.acknowledged_by(&ids).await }
}

/// Claims as a table.
pub(super) fn rows(
    session: &Session,
    caption: &str,
    one: &'static str,
    found: &[RefundView],
    acknowledged_by: &AcknowledgedBy,
) -> Markup {
    let heads =
        [Text(one), Text("Status"), Number("Amount"), Text("Payment"), Text("Takes"), Text("Age"), Text("To do")];
    let row = |claim: &RefundView| row(session, claim, acknowledged_by.get(&claim.id));
    table(caption, &heads, &found.iter().map(row).collect::<Vec<_>>())
}

fn row(session: &Session, claim: &RefundView, by: Option<&(String, String)>) -> Markup {
    let why = claim.status_reason.as_ref().filter(|_| claim.status != ClaimStatus::Matched);
    let id = claim.id.to_string();
    html! {
        th scope="row" { (story(&claim.refund_ref)) }
        td {
            (status(claim.status))
            @if let Some(stage) = claim.stage { " " (status(stage)) }
            @if let Some(why) = why { br; small { (why) } }
        }
        td.number { (money(claim.amount, &claim.currency)) }
        td { (story(&claim.payment_ref)) }
        td { (takes(claim)) }
        td { (ago(claim.created_at)) }
        td {
            @if let Some(to_do) = &claim.attention { small { (to_do) } " " (button(session, Verb::Acknowledge, &id)) }
            @else if claim.acknowledged_at.is_some() {
                small { "acknowledged" @if let Some((who, why)) = by { " by " (who) ": " (why) } }
            }
            @if matches!(claim.status, ClaimStatus::Held | ClaimStatus::Conflicting) { " " (button(session, Verb::Accept, &id)) }
        }
    }
}

/// How far its reversals are.
fn takes(claim: &RefundView) -> Markup {
    let of = |status| claim.reversals.iter().filter(|reversal| reversal.status == status).count();
    let counts = ReversalStatus::iter().map(|status| (status, of(status))).filter(|(_, number)| *number > 0);
    html! { @for (of, number) in counts { (number) " " (status(of)) " " } }
}
