//! `/ui/operations`: what can be done to many rows at once.

use axum::extract::State;
use maud::html;

use super::Ui;
use super::guard::Visitor;
use super::input::Asked;
use super::page::{Answer, Page};
use super::parked::table_of;

/// `GET /ui/operations`.
pub(super) async fn list(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let groups = ui.ledger.failed_groups().await?;
    let body = html! {
        p {
            "Each group of failed debts can be replayed: first a preview with the sum, then the reason, then the act. What was done \
             is in the " a href="/ui/audit" { "audit" } "."
        }
        @if groups.is_empty() { p { "Nothing has failed permanently." } } @else { (table_of(&session, &groups)) }
    };
    Ok(Page::new("Operations", body))
}
