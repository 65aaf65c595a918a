//! `/ui/queues`: the queues as they are on the broker, how they differ from what is wanted, and what to do. What can't be asked is
//! unknown, not 0.

use std::time::Duration;

use axum::extract::State;
use maud::{Markup, html};
use queues::QueueStatus;

use super::Ui;
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{counted, table};
use super::input::Asked;
use super::page::{Answer, Page};
use super::processes;
use crate::operator::survey::{Survey, by_remedy};

/// A broker that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(8);

/// `GET /ui/queues`.
pub(super) async fn show(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let surveyed = tokio::time::timeout(PATIENCE, ui.operator.survey(ui.instance.management.as_ref())).await;
    let surveyed = surveyed.map_err(|_| "no answer".to_owned()).and_then(|done| done.map_err(|e| e.to_string()));
    let outbox = ui.ledger.outbox_backlog().await?;
    let situation = ui.ledger.situation().await?;
    let alive = processes::section(&session, &situation);
    let surveys = match surveyed {
        Ok(surveys) => surveys,
        Err(why) => {
            let body = html! {
                p.notice { "Unknown: the broker could not be asked (" (why) "). Jobs wait in the outbox: " (outbox.unpublished) "." }
                (alive)
            };
            return Ok(Page::new("Queues", body));
        }
    };
    // Workers that wait for Stripe take no jobs, and are not missing.
    let missing = situation.processes.outage().is_none();
    let unattended = surveys.iter().filter(|_| missing).filter_map(|(topology, survey)| survey.no_consumer(topology));
    let unattended: Vec<_> = unattended.collect();
    let differences = surveys.iter().flat_map(|(_, survey)| &survey.report.differences).chain(&unattended);
    let problems = by_remedy(differences);
    let rows_of = |(_, survey): &(_, Survey)| {
        let held = |queue: &QueueStatus| survey.report.unacknowledged.get(&queue.name).copied();
        survey.queues.iter().map(|queue| row(queue, held(queue))).collect::<Vec<_>>()
    };
    let rows: Vec<Markup> = surveys.iter().flat_map(rows_of).collect();
    let version = surveys.iter().find_map(|(_, survey)| survey.report.broker_version.clone());
    let limited = surveys.iter().find_map(|(_, survey)| survey.limited.clone());
    let body = html! {
        p {
            "RabbitMQ " (version.as_deref().unwrap_or("of an unknown version")) ". In the outbox, on the way to it: "
            (counted(outbox.unpublished, "job")) "."
        }
        @if problems.is_empty() { p.done { "Everything is as wanted." } }
        @for (what, remedy) in &problems { p.notice { (what) br; strong { "What to do: " } (remedy) } }
        (table("Queues", &[Text("Queue"), Number("Ready messages"), Number("Held by a worker"), Number("Consumers")], &rows))
        (alive)
        @if let Some(why) = limited { p.help { "Policies, bindings and what workers hold were not looked at: " (why) "." } }
    };
    Ok(Page::new("Queues", body))
}

fn row(queue: &QueueStatus, held: Option<u64>) -> Markup {
    html! {
        th scope="row" { (queue.name) }
        @if queue.exists {
            td.number { (queue.messages) }
            td.number { @if let Some(held) = held { (held) } @else { "unknown" } }
            td.number { (queue.consumers) }
        } @else { td { "missing" } td { "unknown" } td { "unknown" } }
    }
}
