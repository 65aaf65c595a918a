//! What failed permanently and is still owed, in groups of one cause, and what can be done with each group.

use maud::{Markup, html};

use super::Ui;
use super::html::Head::{Number, Text};
use super::html::{ago, counted, own, query, seller, table, time};
use super::operations::{self, sums};
use super::session::Session;
use crate::ledger::{CallKind, FailureGroup, LedgerError, OperationAction};

/// The groups, of reversals and of transfers to create.
pub(super) async fn groups(ui: &Ui, session: &Session) -> Result<Markup, LedgerError> {
    let (reversals, transfers) =
        tokio::try_join!(ui.ledger.failure_groups(CallKind::Reverse), ui.ledger.failure_groups(CallKind::Create))?;
    let of = |kind, groups: &[FailureGroup]| groups.iter().map(|group| row(session, kind, group)).collect();
    let rows: [Vec<Markup>; 2] = [of(CallKind::Reverse, &reversals.groups), of(CallKind::Create, &transfers.groups)];
    let rows = rows.concat();
    let heads =
        [Text("Reason"), Text("What"), Number("How many, and how much"), Text("Sellers"), Text("Failed"), Text("Act")];
    Ok(html! {
        @if rows.is_empty() { p { "Nothing has failed permanently." } }
        @else { (table("By what failed and why", &heads, &rows)) }
        p.help {
            "As of " (time(reversals.as_of.min(transfers.as_of))) "."
            @if !(reversals.complete && transfers.complete) { " There is more: only the oldest 100,000 are looked at." }
        }
    })
}

fn row(session: &Session, kind: CallKind, group: &FailureGroup) -> Markup {
    let (list, code, what, acts) = match kind {
        CallKind::Create => ("/ui/transfers", "", "seller not paid", &[OperationAction::RetryTransfers][..]),
        CallKind::Reverse | CallKind::LookUp | CallKind::Notify => (
            "/ui/reversals",
            group.failure_code.as_str(),
            "not taken back",
            &[OperationAction::ReplayReversals, OperationAction::CloseReversals][..],
        ),
    };
    let filter = [("status", "permanently_failed"), ("failure_code", code)];
    let name = if group.failure_code.is_empty() { "no code" } else { &group.failure_code };
    html! {
        th scope="row" {
            a href={ (list) (query(&filter)) } { (name) }
            @if !group.reason.is_empty() { br; small { (group.reason) } }
        }
        td { (what) }
        td.number {
            (counted(group.count, kind.entity())) ": " (sums(&group.sums))
            br; small { @for id in &group.some_ids { (own(*id)) " " } }
        }
        td { (group.sellers) br; small { @for id in &group.some_sellers { (seller(id)) " " } } }
        td { (ago(group.oldest)) @if group.newest != group.oldest { " to " (ago(group.newest)) } " ago" }
        td { @for act in acts { (operations::button(session, *act, &[("group", &group.key)], name)) } }
    }
}
