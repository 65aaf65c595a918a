//! `/ui/attention` and `/ui/held`: refunds and disputes that somebody must decide about, both kinds on one page.

use std::collections::HashMap;

use axum::extract::State;
use maud::{Markup, html};

use super::Ui;
use super::claims::{path, rows, titles};
use super::guard::Visitor;
use super::html::query;
use super::input::Asked;
use super::operations::bulk;
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use crate::ledger::{ClaimFilter, ClaimKind, ClaimStatus, OperationAction};

/// Rows of each kind; the rest is one link away.
const SHOWN: u64 = 25;

/// `GET /ui/attention`.
pub(super) async fn attention(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let filter = ClaimFilter { needs_attention: true, ..ClaimFilter::default() };
    let body = html! {
        p { "What was done is acknowledged: it counts no more, until there is news of it." }
        (both(&ui, &session, &filter, &[("attention", "yes")], OperationAction::AcknowledgeClaims).await?)
        p { "Refunds of payments that nobody registered, and those that contradict their payment, are among them: "
            a href="/ui/refunds?status=unmatched" { "unmatched" } ", " a href="/ui/refunds?status=conflicting" { "conflicting" } "." }
    };
    Ok(Page::new("Needs attention", body))
}

/// `GET /ui/held`.
pub(super) async fn held(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let filter = ClaimFilter { status: Some(ClaimStatus::Held), acknowledged: Some(false), ..ClaimFilter::default() };
    let body = html! {
        p { "These take nothing before somebody accepts them, or their provider says that they have succeeded." }
        (both(&ui, &session, &filter, &[("status", "held"), ("acknowledged", "no")], OperationAction::AcceptClaims).await?)
    };
    Ok(Page::new("Held", body))
}

/// Both kinds, each with the action on all of it.
async fn both(
    ui: &Ui,
    session: &Session,
    filter: &ClaimFilter,
    in_url: &[(&str, &str)],
    action: OperationAction,
) -> Result<Markup, Refusal> {
    let mut parts = Vec::new();
    for kind in [ClaimKind::Refund, ClaimKind::Dispute] {
        let ((found, _), count) =
            tokio::try_join!(ui.ledger.find_claims(kind, filter, None, SHOWN), ui.ledger.count_claims(kind, filter))?;
        let (title, one) = titles(kind);
        parts.push(html! {
            h2 { (title) }
            @if found.is_empty() { p { "None." } } @else {
                p {
                    "The newest " (found.len()) " of " a href={ (path(kind)) (query(in_url)) } { (count) } ". "
                }
                (bulk(session, &[action], &[in_url, &[("kind", &kind.to_string())]].concat(), false))
                (rows(session, title, one, &found, &HashMap::new()))
            }
        });
    }
    Ok(html! { @for part in &parts { (part) } })
}
