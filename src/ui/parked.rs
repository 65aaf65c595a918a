//! `/ui/parked`: what failed permanently, as the ledger knows it, and the messages that are parked on the broker.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use maud::{Markup, html};

use super::Ui;
use super::act::{Verb, button, confirm, reason, to_its_end};
use super::failures;
use super::guard::{Actor, Visitor};
use super::html::Head::{Number, Text};
use super::html::{ago, counted, facts, own, query, status, story, table, time};
use super::input::{Asked, Fields, Sent};
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use crate::http::{Parameter, Rights};
use crate::ledger::SideCall;
use crate::operator::{Filter, Parked, ParkedAction};

/// The most look-ups and events of a page, the newest.
const SIDE_CALLS: u64 = 20;
/// The most messages of a page, the oldest.
const MESSAGES: usize = 50;
/// A broker that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is done to a parked message.
#[derive(Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
enum Action {
    Replay,
    Discard,
}

impl Parameter for Action {
    fn must() -> String {
        "replay or discard".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// `GET /ui/parked`.
pub(super) async fn list(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let failures = failures::groups(&ui, &session).await?;
    let (side_calls, more) = ui.ledger.failed_side_calls(None, None, SIDE_CALLS).await?;
    let parked = parked(&ui, Filter { limit: Some(MESSAGES), ..Filter::default() }).await?;
    let body = html! {
        h2 { "Failed and still owed" }
        (failures)
        h2 { "Look-ups and events that failed" }
        @if side_calls.is_empty() { p { "None has failed permanently." } }
        @else {
            (table(
                "Newest first",
                &[Text("What"), Text("About"), Text("Failed"), Text("Why"), Text("Act")],
                &side_calls.iter().map(|call| side_call(&session, call)).collect::<Vec<_>>(),
            ))
        }
        @if more.is_some() { p { "The newest " (SIDE_CALLS) "; all: " code { "clawback calls list" } "." } }
        h2 { "Parked messages" }
        @match &parked {
            Err(why) => p.notice { "Unknown: the broker could not be asked (" (why) "). The groups above come from the ledger, and can be replayed." },
            Ok(parked) if parked.is_empty() => p { "No message is parked." },
            Ok(parked) => {
                p {
                    "The oldest " (counted(parked.len() as u64, "message")) ". What was replayed or settled since is not shown; \
                     acting on a message drops it."
                }
                (messages(&session, parked))
            }
        }
    };
    Ok(Page::new("Failed and parked", body))
}

/// The messages, or why they are unknown.
async fn parked(ui: &Ui, filter: Filter) -> Result<Result<Vec<Parked>, String>, Refusal> {
    let found =
        to_its_end(&ui.operator, async move |operator| tokio::time::timeout(PATIENCE, operator.parked(&filter)).await);
    let found = found.await?.map_err(|_| "no answer".to_owned());
    Ok(found.and_then(|found| found.map_err(|error| error.to_string())))
}

fn side_call(session: &Session, call: &SideCall) -> Markup {
    html! {
        th scope="row" { (call.kind.entity()) " " (call.subject) }
        td { @if let Some(id) = &call.reference { (story(id)) } @else { (call.id) } }
        td { (ago(call.changed_at)) " ago" }
        td { small { (call.failure_message.as_deref().unwrap_or_default()) } }
        td { (button(session, Verb::Replay, &call.id.to_string())) }
    }
}

fn messages(session: &Session, parked: &[Parked]) -> Markup {
    let rows: Vec<Markup> = parked.iter().map(|parked| message(session, parked)).collect();
    table(
        "Messages",
        &[Text("Message"), Text("About"), Text("Row"), Number("Tries"), Text("Parked"), Text("Reason"), Text("Act")],
        &rows,
    )
}

fn message(session: &Session, parked: &Parked) -> Markup {
    let job = &parked.job;
    let link =
        |action: Action| format!("/ui/parked/message{}", query(&[("id", &job.id), ("action", &action.to_string())]));
    html! {
        th scope="row" { (job.kind) }
        td { @if let Some(about) = parked.subject { (about.entity()) " " (own(about.id)) } @else { "unknown to this version" } }
        td { @if let Some(of_row) = &parked.status { (status(of_row)) } @else { "not in the ledger" } }
        td.number { (job.attempts) }
        td { @if let Some(at) = job.parked_at { (ago(at)) } @else { "unknown" } }
        td { small { (why(parked)) } }
        td {
            @if session.rights == Rights::Operate {
                a.button href=(link(Action::Replay)) { "Replay" } " " a.button href=(link(Action::Discard)) { "Discard" }
            }
        }
    }
}

fn why(parked: &Parked) -> &str {
    parked.job.reason.as_deref().unwrap_or("published there, not parked by a worker")
}

/// The message that the fields name, and what is to be done.
async fn chosen(ui: &Ui, id: Option<String>) -> Result<Vec<Parked>, Refusal> {
    let found = match id {
        Some(id) => parked(ui, Filter { id: Some(id), ..Filter::default() }).await?,
        None => Ok(Vec::new()),
    };
    let found = found.map_err(|why| {
        let to_do = html! { "Debts can be replayed from the ledger: " a href="/ui/parked" { "Failed and parked" } "." };
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The broker is away",
            format!("It could not be asked: {why}."),
            to_do,
        )
    })?;
    if found.is_empty() {
        return Err(Refusal::not_found("No such message is parked: somebody may have dealt with it."));
    }
    Ok(found)
}

fn action(fields: &mut Fields) -> (Option<String>, Action) {
    (fields.text("id"), fields.parsed("action").unwrap_or(Action::Replay))
}

/// `GET /ui/parked/message?id=&action=`.
pub(super) async fn preview(State(ui): State<Ui>, _: Actor, Asked(mut fields): Asked) -> Answer {
    let (id, action) = action(&mut fields);
    fields.done()?;
    let found = chosen(&ui, id.clone()).await?;
    let needed = if action == Action::Replay { ui.operator.to_confirm(&found).await? } else { None };
    let body = html! {
        @for parked in &found {
            (facts(&[
                ("Kind", html! { (parked.job.kind) }),
                ("About", html! { @if let Some(about) = parked.subject { (about.entity()) " " (own(about.id)) } }),
                ("Row", html! { @if let Some(of_row) = &parked.status { (status(of_row)) } @else { "not in the ledger" } }),
                ("Parked", html! { @if let Some(at) = parked.job.parked_at { (time(at)) } }),
                ("Reason", html! { (why(parked)) }),
                ("What happens", html! { (what_happens(action, parked)) }),
            ]))
        }
        form.stacked method="post" action="/ui/parked/message" {
            input type="hidden" name="id" value=(id.unwrap_or_default());
            input type="hidden" name="action" value=(action);
            (confirm(needed.as_deref()))
            (reason())
            p { button.go type="submit" { (name(action)) } " " a href="/ui/parked" { "Cancel" } }
        }
    };
    Ok(Page::new(format!("{} a parked message", name(action)), body))
}

/// `POST /ui/parked/message`.
pub(super) async fn act(State(ui): State<Ui>, Actor(session): Actor, Sent(mut fields): Sent) -> Answer {
    let ((id, action), note) = (action(&mut fields), fields.note(&session.operator));
    let typed = if action == Action::Replay { fields.text("confirm_amount") } else { None };
    fields.done()?;
    let found = chosen(&ui, id).await?;
    let needed = if action == Action::Replay { ui.operator.to_confirm(&found).await? } else { None };
    ui.ledger.check_confirmed(needed.as_deref(), typed.as_deref())?;
    let sorted = to_its_end(&ui.operator, async move |operator| match action {
        Action::Replay => operator.replay_parked(found, Duration::ZERO, &note).await,
        Action::Discard => operator.discard_parked(found, &note).await,
    });
    let sorted = sorted.await?;
    let body = html! {
        @if let Some(error) = &sorted.interrupted { p.refused role="alert" { "It ended early: " (error) } }
        @for handled in &sorted.handled {
            p.done role="status" {
                @match &handled.action {
                    ParkedAction::Replayed => "Replayed: its row is tried again with a new job.",
                    ParkedAction::SentBack => "Sent back to work.",
                    ParkedAction::TakenAway => "Taken away: its row is settled.",
                    ParkedAction::Discarded => "Discarded. Its row stays as it is, and can still be replayed.",
                    ParkedAction::Skipped { why } => { "Skipped: " (why) },
                }
                @if let Some(about) = handled.parked.subject { " " (own(about.id)) }
            }
        }
        p { a href="/ui/parked" { "Failed and parked" } " · " a href="/ui/audit" { "Audit" } }
    };
    Ok(Page::new(format!("{}: done", name(action)), body))
}

const fn name(action: Action) -> &'static str {
    match action {
        Action::Replay => "Replay",
        Action::Discard => "Discard",
    }
}

fn what_happens(action: Action, parked: &Parked) -> String {
    if action == Action::Discard {
        return "The message is thrown away. Its row stays as it is: what failed is still owed.".to_owned();
    }
    match parked.on_replay() {
        ParkedAction::Replayed => {
            "Its row is tried again, with a new job in the message's place; Stripe is asked first.".to_owned()
        }
        ParkedAction::SentBack => "Its row is still open: the message goes back to the work queue.".to_owned(),
        ParkedAction::TakenAway | ParkedAction::Discarded => {
            "Its row is settled: the message is taken away.".to_owned()
        }
        ParkedAction::Skipped { why } => format!("Nothing: {why}."),
    }
}
