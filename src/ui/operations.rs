//! `/ui/operations`: what is done to many rows at once. A preview freezes the rows; started, each of them is worked on as if it
//! alone had been asked for.

use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use sea_orm::Iterable;
use serde_json::Value;
use uuid::Uuid;

use super::Ui;
use super::act::{Verb, confirm, reason};
use super::failures;
use super::guard::{Actor, Visitor};
use super::html::Head::{Number, Text};
use super::html::{ROWS, ago, counted, facts, filters, live, own, pages, select, status, table, time};
use super::input::{Asked, Count, Currency, Sent, YesNo};
use super::money::{money, text};
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use crate::http::{Cursor, Position, Rights, Time};
use crate::ledger::{
    ClaimKind, CurrencySum, ItemState, ItemView, OperationAction, OperationFilter, OperationState, OperationView, Pace,
};
use crate::reconcile;

const PATH: &str = "/ui/operations";

/// `GET /ui/operations`.
pub(super) async fn list(State(ui): State<Ui>, Visitor(session): Visitor, Asked(mut fields): Asked) -> Answer {
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    fields.done()?;
    let failures = failures::groups(&ui, &session).await?;
    let (found, next) = ui.ledger.list_operations(cursor, ROWS).await?;
    let rows: Vec<Markup> = found.iter().map(row).collect();
    let heads = [
        Text("Operation"),
        Text("What"),
        Text("State"),
        Number("Rows, and how much"),
        Text("Progress"),
        Text("Who and why"),
    ];
    let body = html! {
        h2 { "Failed and still owed" }
        p { "Each group can be acted upon as a whole: first a preview, then the reason, then the act." }
        (failures)
        h2 { "Operations" }
        @if rows.is_empty() { p { "There are none." } } @else { (table("Operations, newest first", &heads, &rows)) }
        (pages(PATH, &[], cursor.is_none(), next))
    };
    Ok(Page::new("Operations", body))
}

fn row(operation: &OperationView) -> Markup {
    html! {
        th scope="row" { a href=(path(operation.id)) { (time(operation.created_at)) } }
        td { (name(operation.action)) }
        td { (status(operation.state)) }
        td.number { (amounts(operation)) }
        td { (progress(operation)) }
        td { (by(operation)) }
    }
}

/// A button that leads to a preview, for those who may act. `of_what` tells it from others for those who can't see the table.
pub(super) fn button(session: &Session, action: OperationAction, filter: &[(&str, &str)], of_what: &str) -> Markup {
    let verb = verb(action).name();
    html! {
        @if session.rights == Rights::Operate {
            form method="post" action=(PATH) {
                input type="hidden" name="action" value=(action);
                @for (name, value) in filter { input type="hidden" name=(name) value=(value); }
                button.button type="submit" aria-label={ (verb) ": " (of_what) } { (verb) }
            }
        }
    }
}

/// The names of a list's filter that an operation has too.
const SHARED: [&str; 9] =
    ["status", "kind", "attention", "currency", "seller", "failure_code", "group", "since", "until"];

/// The buttons for all rows that match a list's filter. An operation needs a condition: without one, all that ever failed.
pub(super) fn bulk(
    session: &Session,
    actions: &[OperationAction],
    in_url: &[(&str, &str)],
    nothing_matches: bool,
) -> Markup {
    let fits = |(name, value): &(&str, &str), action: OperationAction| {
        let is_status_of_claims = action.is_about_claims() || *name != "status";
        SHARED.contains(name) && !value.is_empty() && is_status_of_claims
    };
    let filter = |action| {
        let shared: Vec<_> = in_url.iter().filter(|pair| fits(pair, action)).copied().collect();
        if shared.is_empty() { vec![("since", "1970-01-01")] } else { shared }
    };
    html! {
        @if !actions.is_empty() && !nothing_matches && session.rights == Rights::Operate {
            div.bulk {
                "All that match: "
                @for action in actions { (button(session, *action, &filter(*action), "all that match")) }
            }
        }
    }
}

/// `POST /ui/operations`: freezes the rows, and leads to the page that shows them.
pub(super) async fn preview(State(ui): State<Ui>, _: Actor, Sent(mut fields): Sent) -> Result<Redirect, Refusal> {
    let action = fields.parsed("action").unwrap_or(OperationAction::ReplayReversals);
    let filter = OperationFilter {
        failure_code: fields.text("failure_code"),
        group: fields.text("group"),
        seller: fields.text("seller"),
        currency: fields.parsed("currency").map(|Currency(code)| code),
        kind: match fields.text("kind").as_deref() {
            Some("refund") => Some(ClaimKind::Refund),
            Some("dispute") => Some(ClaimKind::Dispute),
            _ => None,
        },
        status: fields.parsed("status"),
        attention: fields.parsed("attention").map(|YesNo(is_so)| is_so),
        since: fields.parsed("since").map(|Time(at)| at),
        until: fields.parsed("until").map(|Time(at)| at),
        ..OperationFilter::default()
    };
    fields.done()?;
    let previewed = reconcile::preview(&ui.ledger, ui.stripe_now.as_ref(), action, &filter).await?;
    Ok(Redirect::to(&path(previewed.id)))
}

/// `GET /ui/operations/{id}`.
pub(super) async fn show(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    Path(id): Path<String>,
    Asked(mut fields): Asked,
) -> Answer {
    let state: Option<ItemState> = fields.parsed("state");
    let cursor = fields.parsed("cursor").map(|Position(position)| position);
    fields.done()?;
    let id = parse(&id)?;
    let operation = ui.ledger.operation(id).await?.ok_or_else(unknown)?;
    let (items, next) = ui.ledger.operation_items(id, state, cursor, ROWS).await?;
    let chosen = state.map(|state| state.to_string());
    let rows: Vec<Markup> = items.iter().map(item).collect();
    let (here, is_running) = (path(id), operation.state == OperationState::Running);
    let body = html! {
        (live(is_running, &about(&operation)))
        @if operation.matching > operation.items.into() {
            p.notice { (operation.matching) " match; this is about the oldest " (operation.items) ". Preview again for the rest." }
        }
        @for refusal in &operation.refusals {
            p.notice {
                (refusal.count) " of the " (operation.checked) " that were tried would be refused: " (refusal.reason)
                " For example " (own(refusal.example)) "."
            }
        }
        @if is_running { p { a href=(here) { "Reload" } " to see how far its rows are." } }
        @if session.rights == Rights::Operate { (acts(&operation)) }
        h2 { "Rows" }
        (filters(&here, &select("state", "State", "any", ItemState::iter(), chosen.as_deref())))
        @if rows.is_empty() { p { "Nothing matches." } }
        @else { (table("In their order", &[Text("Id"), Number("Amount"), Text("At Stripe"), Text("State"), Text("Done"), Text("Why not")], &rows)) }
        (pages(&here, &[("state", chosen.as_deref().unwrap_or_default())], cursor.is_none(), next))
        p { a href=(PATH) { "Operations" } " · " a href="/ui/audit?entity=operation" { "Audit" } }
    };
    Ok(Page::new(name(operation.action), body))
}

fn about(operation: &OperationView) -> Markup {
    let filter = match serde_json::to_value(&operation.filter) {
        Ok(Value::Object(conditions)) => conditions.iter().map(|(name, value)| format!("{name} {value}")).collect(),
        _ => Vec::new(),
    };
    let mut all = vec![
        ("State", status(operation.state)),
        ("Rows", html! { (amounts(operation)) }),
        ("Which match", html! { (filter.join(", ")) }),
        ("Progress", html! { (progress(operation)) }),
        ("Previewed", time(operation.created_at)),
    ];
    if operation.action.asks_stripe() && operation.items > 0 {
        all.push(("At Stripe then", at_stripe(operation)));
    }
    all.extend(operation.oldest.map(|oldest| ("Oldest", html! { (ago(oldest)) " ago" })));
    all.extend(operation.operator.is_some().then(|| ("By", by(operation))));
    all.extend((operation.spread_seconds > 0).then(|| ("Spread over", html! { (operation.spread_seconds) " s" })));
    all.extend(operation.cap.map(|cap| ("No more rows than", html! { (cap) })));
    all.extend(operation.started_at.map(|at| ("Started", time(at))));
    all.extend(operation.finished_at.map(|at| ("Ended", time(at))));
    facts(&all)
}

/// What Stripe said of the first rows.
fn at_stripe(operation: &OperationView) -> Markup {
    if operation.at_stripe.is_empty() {
        return html! { "not asked: this process had no STRIPE_API_KEY, or was stopped" };
    }
    let asked: i64 = operation.at_stripe.iter().flat_map(|of| &of.sums).map(|of| of.sum.count).sum();
    html! {
        @for of in &operation.at_stripe {
            (status(of.says)) " " (of.sums.iter().map(|of| of.sum.count).sum::<i64>()) ": " (sums(&of.sums)) br;
        }
        @if asked < i64::from(operation.items) { small { "Only the first " (asked) " rows were asked about." } }
    }
}

/// What can be done with it now.
fn acts(operation: &OperationView) -> Markup {
    let here = path(operation.id);
    match operation.state {
        OperationState::Previewed if operation.items == 0 => {
            html! { p { "Nothing matches, so there is nothing to do." } }
        }
        OperationState::Previewed => html! {
            p { (verb(operation.action).consequence()) " Exactly the rows below are worked on, whatever matches by then." }
            form.stacked method="post" action={ (here) "/start" } {
                (confirm(operation.confirm.as_deref()))
                (reason())
                label { "Spread evenly over so many seconds (optional)"
                    input name="spread_seconds" inputmode="numeric" pattern="[0-9]*" autocomplete="off";
                }
                label { "No more rows than, the oldest first (optional)"
                    input name="cap" inputmode="numeric" pattern="[0-9]*" autocomplete="off";
                }
                p { button.go type="submit" { (verb(operation.action).name()) " " (counted(operation.items, "row")) } " " a href=(PATH) { "Cancel" } }
            }
        },
        OperationState::Running => html! {
            form.stacked method="post" action={ (here) "/abort" } {
                (reason())
                p { button.go type="submit" { "Abort: what is not done stays as it is" } }
            }
        },
        OperationState::Done | OperationState::Aborted => html! {},
    }
}

/// `POST /ui/operations/{id}/start`.
pub(super) async fn start(
    State(ui): State<Ui>,
    Actor(session): Actor,
    Path(id): Path<String>,
    Sent(mut fields): Sent,
) -> Result<Redirect, Refusal> {
    let (id, note) = (parse(&id)?, fields.note(&session.operator));
    let mut count = |name| fields.parsed(name).map(|Count(count)| count);
    let pace = Pace { spread_seconds: count("spread_seconds").unwrap_or_default(), cap: count("cap") };
    let typed = fields.text("confirm_amount");
    fields.done()?;
    ui.ledger.start_operation(id, &note, pace, typed.as_deref()).await?;
    Ok(Redirect::to(&path(id)))
}

/// `POST /ui/operations/{id}/abort`.
pub(super) async fn abort(
    State(ui): State<Ui>,
    Actor(session): Actor,
    Path(id): Path<String>,
    Sent(mut fields): Sent,
) -> Result<Redirect, Refusal> {
    let (id, note) = (parse(&id)?, fields.note(&session.operator));
    fields.done()?;
    ui.ledger.abort_operation(id, &note).await?;
    Ok(Redirect::to(&path(id)))
}

fn path(id: Uuid) -> String {
    format!("{PATH}/{id}")
}

fn parse(id: &str) -> Result<Uuid, Refusal> {
    id.parse().map_err(|_| unknown())
}

fn unknown() -> Refusal {
    Refusal::not_found("There is no such operation. A preview that is never started is deleted after 7 days.")
}

fn item(item: &ItemView) -> Markup {
    html! {
        th scope="row" { (own(item.target_id)) }
        td.number { (money(item.amount, &item.currency)) }
        td { @if let Some(says) = item.at_stripe { (status(says)) } @if let Some(detail) = &item.stripe_detail { br; small { (detail) } } }
        td { (status(item.state)) }
        td { @if let Some(at) = item.done_at { (time(at)) } }
        td { @if let Some(problem) = &item.problem { small { (problem) } } }
    }
}

/// `120.00 EUR + 5,000 JPY`.
pub(super) fn sums(sums: &[CurrencySum]) -> String {
    let sums: Vec<String> = sums.iter().map(|of| text(of.sum.amount.into(), &of.currency)).collect();
    sums.join(" + ")
}

fn amounts(operation: &OperationView) -> String {
    match operation.items {
        0 => "none".to_owned(),
        items => format!("{}: {}", counted(items, "row"), sums(&operation.sums)),
    }
}

fn progress(operation: &OperationView) -> String {
    let of = operation.progress;
    format!("{} done, {} refused, {} left", of.done, of.refused, of.pending)
}

fn by(operation: &OperationView) -> Markup {
    html! {
        @if let (Some(operator), Some(reason)) = (&operation.operator, &operation.reason) { (operator) ": " (reason) }
    }
}

/// What is done with each row.
const fn verb(action: OperationAction) -> Verb {
    match action {
        OperationAction::ReplayReversals => Verb::Replay,
        OperationAction::RetryTransfers => Verb::Retry,
        OperationAction::CloseReversals => Verb::Close,
        OperationAction::DiscardMessages => Verb::Discard,
        OperationAction::AcceptClaims => Verb::Accept,
        OperationAction::AcknowledgeClaims => Verb::Acknowledge,
    }
}

const fn name(action: OperationAction) -> &'static str {
    match action {
        OperationAction::ReplayReversals => "Replay reversals",
        OperationAction::RetryTransfers => "Retry transfers",
        OperationAction::CloseReversals => "Close reversals",
        OperationAction::DiscardMessages => "Discard parked messages",
        OperationAction::AcceptClaims => "Accept claims",
        OperationAction::AcknowledgeClaims => "Acknowledge claims",
    }
}
