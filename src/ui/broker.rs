//! `/ui/queues`: the queues as they are on the broker, how they differ from what is wanted, and what to do. What can't be asked is
//! unknown, not 0.

use axum::extract::State;
use maud::{Markup, html};

use super::Ui;
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{counted, table, time};
use super::input::Asked;
use super::page::{Answer, Page};
use super::processes;
use crate::operator::survey::{QueueView, Verified, by_remedy, paused_workers};

/// `GET /ui/queues`.
pub(super) async fn show(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let (seen, outbox, situation) =
        tokio::join!(ui.looks.surveys.seen(), ui.ledger.outbox_backlog(), ui.ledger.situation());
    let (outbox, situation) = (outbox?, situation?);
    let alive = processes::section(&session, &situation);
    let surveys = match &seen.found {
        Ok(surveys) => surveys,
        Err(why) => {
            let body = html! {
                p.notice {
                    "Unknown: the broker could not be asked (" (why) "), as of " (time(seen.at)) ". Jobs wait in the outbox: "
                    (outbox.unpublished) "."
                }
                (alive)
            };
            return Ok(Page::new("Queues", body));
        }
    };
    let verified = Verified::of(surveys, paused_workers(&situation));
    let rows: Vec<Markup> = verified.queues.iter().map(row).collect();
    let body = html! {
        p {
            "RabbitMQ " (verified.broker_version.as_deref().unwrap_or("of an unknown version")) ", as of " (time(seen.at))
            ". In the outbox, on the way to it: " (counted(outbox.unpublished, "job")) "."
        }
        @if verified.problems.is_empty() { p.done { "Everything is as wanted." } }
        @for (what, remedy) in by_remedy(&verified.problems) { p.notice { (what) br; strong { "What to do: " } (remedy) } }
        (table("Queues", &[Text("Queue"), Number("Ready messages"), Number("Held by a worker"), Number("Consumers")], &rows))
        (alive)
        @if let Some(why) = verified.limited { p.help { "Policies, bindings and what workers hold were not looked at: " (why) "." } }
    };
    Ok(Page::new("Queues", body))
}

fn row(queue: &QueueView) -> Markup {
    html! {
        th scope="row" { (queue.name) }
        @if queue.exists { (number(queue.messages)) (number(queue.unacknowledged)) (number(queue.consumers)) }
        @else { td { "missing" } td { "unknown" } td { "unknown" } }
    }
}

/// What is not known is not 0.
fn number(number: Option<impl Into<u64>>) -> Markup {
    html! { td.number { @if let Some(number) = number { (number.into()) } @else { "unknown" } } }
}
