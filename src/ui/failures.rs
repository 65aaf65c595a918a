//! What failed permanently and is still owed, in groups of one cause, what operators say about each, and what can be done with it.

use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};

use super::Ui;
use super::guard::Actor;
use super::html::Head::{Number, Text};
use super::html::{ago, counted, facts, own, query, seller, table, time};
use super::input::{Asked, Fields, Sent};
use super::operations::{self, sums};
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use crate::http::Rights;
use crate::ledger::{CallKind, FailureGroup, LedgerError, Note, OperationAction};
use crate::operator::limits::REASON_MAX_CHARS;

const NOTE: &str = "/ui/groups/note";
/// The most groups of a page, the largest.
const SHOWN: usize = 15;

/// The groups, of reversals and of transfers to create.
pub(super) async fn groups(ui: &Ui, session: &Session) -> Result<Markup, LedgerError> {
    let (reversals, transfers) =
        tokio::try_join!(ui.ledger.failure_groups(CallKind::Reverse), ui.ledger.failure_groups(CallKind::Create))?;
    let created = transfers.groups.iter().map(|group| (CallKind::Create, group));
    let mut groups: Vec<_> = reversals.groups.iter().map(|group| (CallKind::Reverse, group)).chain(created).collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    let more = groups.len().saturating_sub(SHOWN);
    let rows: Vec<Markup> = groups.iter().take(SHOWN).map(|(kind, group)| row(session, *kind, group)).collect();
    let heads =
        [Text("Reason"), Text("What"), Number("How many, and how much"), Text("Sellers"), Text("Failed"), Text("Act")];
    Ok(html! {
        @if rows.is_empty() { p { "Nothing has failed permanently." } }
        @else { (table("By what failed and why", &heads, &rows)) }
        @if more > 0 {
            p {
                "The largest " (SHOWN) "; " (counted(more as u64, "more group")) ": "
                a href="/ui/reversals?status=permanently_failed&owed=yes" { "all that is not taken back" } ", "
                a href="/ui/transfers?not_created=yes" { "all sellers not paid" } "; all groups: "
                code { "clawback reversals groups" } ", " code { "clawback transfers groups" } "."
            }
        }
        p.help {
            "As of " (time(reversals.as_of.min(transfers.as_of))) "."
            @if !(reversals.complete && transfers.complete) { " There is more: only the oldest 100,000 are looked at." }
        }
    })
}

fn row(session: &Session, kind: CallKind, group: &FailureGroup) -> Markup {
    let (list, which, what, acts) = match kind {
        CallKind::Create => {
            ("/ui/transfers", ("not_created", "yes"), "seller not paid", &[OperationAction::RetryTransfers][..])
        }
        CallKind::Reverse | CallKind::LookUp | CallKind::Notify => (
            "/ui/reversals",
            ("status", "permanently_failed"),
            "not taken back",
            &[OperationAction::ReplayReversals, OperationAction::CloseReversals, OperationAction::DiscardMessages][..],
        ),
    };
    let name = if group.failure_code.is_empty() { "no code" } else { &group.failure_code };
    html! {
        th scope="row" {
            a href={ (list) (query(&[which, ("group", &group.key)])) } { (name) }
            @if !group.reason.is_empty() { br; small { (group.reason) } }
            @for note in &group.notes {
                p.note { (note.text) " " small { "– " (note.operator) ", " (ago(note.created_at)) " ago" } }
            }
        }
        td { (what) }
        td.number {
            (counted(group.count, kind.entity())) ": " (sums(&group.sums))
            br; small { @for id in &group.some_ids { (own(*id)) " " } }
        }
        td { (group.sellers) br; small { @for id in &group.some_sellers { (seller(id)) " " } } }
        td { (ago(group.oldest)) @if group.newest != group.oldest { " to " (ago(group.newest)) } " ago" }
        td {
            @for act in acts { (operations::button(session, *act, &[("group", &group.key)], name)) }
            @if session.rights == Rights::Operate {
                a.button href={ (NOTE) (query(&[("kind", kind.entity()), ("key", &group.key)])) } aria-label={ "Add a note: " (name) } { "Note" }
            }
        }
    }
}

/// `GET /ui/groups/note?kind=&key=`.
pub(super) async fn ask_note(State(ui): State<Ui>, _: Actor, Asked(mut fields): Asked) -> Answer {
    let (kind, key) = group_of(&mut fields);
    fields.done()?;
    let groups = ui.ledger.failure_groups(kind).await?;
    let group = groups.groups.iter().find(|group| group.key == key);
    let group = group.ok_or_else(|| Refusal::not_found("There is no such group any more."))?;
    let body = html! {
        (facts(&[
            ("Reason", html! { (group.failure_code) " " (group.reason) }),
            ("How many, and how much", html! { (counted(group.count, kind.entity())) ": " (sums(&group.sums)) }),
        ]))
        form.stacked method="post" action=(NOTE) {
            input type="hidden" name="kind" value=(kind.entity());
            input type="hidden" name="key" value=(key);
            label { "Note" input name="text" required maxlength=(REASON_MAX_CHARS) aria-describedby="note-help" autocomplete="off"; }
            p.help id="note-help" { "What others should know, on one line. It is shown with the group, with your name." }
            p { button.go type="submit" { "Add" } " " a href="/ui/parked" { "Cancel" } }
        }
    };
    Ok(Page::new("Add a note", body))
}

/// `POST /ui/groups/note`.
pub(super) async fn note(
    State(ui): State<Ui>,
    Actor(session): Actor,
    Sent(mut fields): Sent,
) -> Result<Redirect, Refusal> {
    let ((kind, key), text) = (group_of(&mut fields), fields.required("text", REASON_MAX_CHARS));
    fields.done()?;
    ui.ledger.note_on_group(kind, &key, &Note::new(&session.operator, text)).await?;
    Ok(Redirect::to("/ui/parked"))
}

fn group_of(fields: &mut Fields) -> (CallKind, String) {
    let kind = match fields.text("kind").as_deref() {
        Some("transfer") => CallKind::Create,
        _ => CallKind::Reverse,
    };
    (kind, fields.text("key").unwrap_or_default())
}
