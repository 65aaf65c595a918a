//! `/ui/reversals`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use sea_orm::Iterable;

use super::Ui;
use super::act::{Verb, button};
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{
    Head, ROWS, ago, filters, input, matching, moment, no_rows, own, pages, select, seller, status, story, table, time,
};
use super::input::{Asked, Csv, Currency, Yes, YesNo};
use super::money::money;
use super::operations::bulk;
use super::page::{Page, Refusal};
use super::session::Session;
use crate::http::reversals::lines;
use crate::http::{Cursor, Order, Time, recorded};
use crate::ledger::{FoundReversal, OperationAction, Recorded, ReversalFilter, ReversalStatus, ReversalView};
use crate::lines::Lines;

const PATH: &str = "/ui/reversals";
const HEADS: [Head; 9] = [
    Text("Reversal"),
    Text("Status"),
    Number("Amount"),
    Text("Seller"),
    Text("Claim"),
    Text("Payment"),
    Text("Transfer"),
    Text("Age"),
    Text("What happens"),
];

/// `GET /ui/reversals`.
pub(super) async fn list(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    Asked(mut fields): Asked,
) -> Result<Response, Refusal> {
    let filter = ReversalFilter {
        status: fields.parsed("status"),
        currency: fields.parsed("currency").map(|Currency(code)| code),
        waits: fields.parsed("waits").map(|YesNo(waits)| waits),
        seller: fields.text("seller"),
        failure_code: fields.text("failure_code"),
        group: fields.text("group"),
        owed: fields.parsed::<Yes>("owed").is_some(),
        recorded: recorded(fields.parsed("since"), fields.parsed("until")),
        changed_since: fields.parsed("changed_since").map(|Time(at)| at),
        oldest: fields.parsed("order") == Some(Order::Oldest),
    };
    let order = if filter.oldest { "oldest" } else { "" };
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    let as_csv = fields.parsed::<Csv>("format").is_some();
    fields.done()?;
    if as_csv {
        return Ok(lines(&ui.ledger, filter, Lines::Csv).await?);
    }
    let ((found, next), count) =
        tokio::try_join!(ui.ledger.find_reversals(&filter, cursor, ROWS), ui.ledger.count_reversals(&filter))?;
    let chosen = filter.status.map(|status| status.to_string());
    let owed = if filter.owed { "yes" } else { "" };
    let waits = filter.waits.map(|waits| if waits { "yes" } else { "no" });
    let times = [filter.recorded.since, filter.recorded.until, filter.changed_since].map(|at| at.map(moment));
    let [since, until, changed_since] = times.each_ref().map(Option::as_deref);
    let in_url = [
        ("status", chosen.as_deref()),
        ("currency", filter.currency.as_deref()),
        ("waits", waits),
        ("seller", filter.seller.as_deref()),
        ("failure_code", filter.failure_code.as_deref()),
        ("group", filter.group.as_deref()),
        ("owed", Some(owed)),
        ("since", since),
        ("until", until),
        ("changed_since", changed_since),
        ("order", Some(order)),
    ]
    .map(|(name, value)| (name, value.unwrap_or_default()));
    let choices = html! {
        (select("status", "Status", "any", ReversalStatus::iter(), chosen.as_deref()))
        (input("currency", "Currency", filter.currency.as_deref()))
        (select("waits", "Waits for balance", "any", ["yes", "no"], waits))
        (input("seller", "Seller", filter.seller.as_deref()))
        (input("failure_code", "Failure code", filter.failure_code.as_deref()))
        @if let Some(group) = &filter.group { (input("group", "Group of failures", Some(group))) }
        (select("owed", "Still owed", "any", ["yes"], Some(owed)))
        (input("since", "Recorded since: a time, or 24h", since))
        (input("until", "Recorded before", until))
        (input("changed_since", "Changed since", changed_since))
        (select("order", "Order", "newest first", ["oldest"], Some(order)))
    };
    let rows: Vec<Markup> = found.iter().map(|found| row(&session, found)).collect();
    let body = html! {
        (filters(PATH, &choices))
        (matching(PATH, &in_url, &count))
        @if is_actionable(&filter) { (bulk(&session, &ACTIONS, &in_url, rows.is_empty())) }
        @if rows.is_empty() { (no_rows(next.as_ref())) } @else { (table("Reversals", &HEADS, &rows)) }
        (pages(PATH, &in_url, cursor.is_none(), next))
    };
    Ok(Page::new("Reversals", body).into_response())
}

/// What can be done with all that match.
const ACTIONS: [OperationAction; 3] =
    [OperationAction::ReplayReversals, OperationAction::CloseReversals, OperationAction::DiscardMessages];

/// Whether an operation can be about the same rows. Its times are those of the failures, not of the debts.
fn is_actionable(filter: &ReversalFilter) -> bool {
    let Recorded { since, until } = filter.recorded;
    filter.status == Some(ReversalStatus::PermanentlyFailed)
        && filter.waits.is_none()
        && [since, until, filter.changed_since].iter().all(Option::is_none)
}

fn row(session: &Session, found: &FoundReversal) -> Markup {
    let reversal = &found.reversal;
    html! {
        th scope="row" {
            (own(reversal.id))
            @if let Some(id) = &reversal.stripe_reversal_id { br; (story(id)) }
        }
        td { (status(reversal.status)) }
        td.number { (money(reversal.amount, &reversal.currency)) }
        td { (seller(&found.seller_id)) }
        td { (story(&reversal.refund_ref)) }
        td { (story(&found.payment_ref)) }
        td { @if let Some(id) = &found.stripe_transfer_id { (story(id)) } @else { "not created" } }
        td { (ago(reversal.created_at)) }
        td { (next(session, reversal)) }
    }
}

/// What its status alone does not say, and what can be done.
pub(super) fn next(session: &Session, reversal: &ReversalView) -> Markup {
    let id = reversal.id.to_string();
    html! {
        @if let Some(at) = reversal.next_retry_at { "next try " (time(at)) " " }
        @if reversal.externally_reversed { "by another program " }
        @if reversal.amount_closed > 0 { (money(reversal.amount_closed, &reversal.currency)) " settled elsewhere " }
        @if reversal.status != ReversalStatus::Reversed && let Some(code) = &reversal.failure_code {
            small { (code) @if let Some(message) = &reversal.failure_message { ": " (message) } } " "
        }
        @if reversal.status == ReversalStatus::PermanentlyFailed {
            (button(session, Verb::Replay, &id)) " " (button(session, Verb::Close, &id))
        }
    }
}
