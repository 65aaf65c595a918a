//! Who is alive, and the switches: pause, resume, and a probe of Stripe. A part of `/ui/queues`; each switch is a form of its own.

use axum::extract::{Path, State};
use maud::{Markup, html};

use super::Ui;
use super::act::reason;
use super::guard::Actor;
use super::html::Head::{Number, Text};
use super::html::{Head, ago, input, status, table, time};
use super::input::{Sent, YesNo};
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use crate::http::Rights;
use crate::ledger::{BreakerState, Pause, Process, Situation};

const PROCESSES: [Head; 8] = [
    Text("Process"),
    Text("Machine"),
    Text("Version"),
    Text("Started"),
    Text("Circuit breaker"),
    Number("Calls a second, at most"),
    Number("Consumers"),
    Number("Jobs running"),
];

/// The table of processes, and the switches for those who may act.
pub(super) fn section(session: &Session, situation: &Situation) -> Markup {
    let Situation { processes, pauses } = situation;
    let rows: Vec<Markup> = processes.alive.iter().map(row).collect();
    let may_act = session.rights == Rights::Operate;
    html! {
        section aria-labelledby="alive" {
            h2 id="alive" { "Who is alive" }
            @if processes.workers().next().is_none() { p.notice { "No worker is alive: nobody calls Stripe, jobs wait. Start " code { "clawback worker" } "." } }
            @for process in &processes.missing {
                p.notice { "A " (process.role) " on " (process.host) " (pid " (process.pid) ") is missing since " (time(process.seen_at)) "." }
            }
            @if !rows.is_empty() { (table("Running processes", &PROCESSES, &rows)) }
            @if may_act && processes.outage().is_some() {
                form.stacked method="post" action="/ui/breaker/probe" {
                    (reason())
                    p { button.go type="submit" { "Probe Stripe now" } }
                }
            }
        }
        section aria-labelledby="pauses" {
            h2 id="pauses" { "Paused by operators" }
            @if pauses.is_empty() { p { "Nothing is paused." } }
            @for pause in pauses { (paused(pause, may_act)) }
            @if may_act {
                form.stacked method="post" action="/ui/pauses" {
                    (input("seller", "Seller's account at Stripe, like acct_1 (empty: everything)", None))
                    label.choice { input type="checkbox" name="force" value="yes"; " also if no transfer to it is registered" }
                    (reason())
                    p { button type="submit" { "Pause" } }
                }
            }
        }
    }
}

fn row(process: &Process) -> Markup {
    let Process { role, host, pid, version, started_at, breaker, calls_per_second, .. } = process;
    html! {
        th scope="row" { (role) }
        td { (host) " (pid " (pid) ")" }
        td { (version) }
        td { (ago(*started_at)) " ago" }
        td {
            @match breaker {
                None => "–",
                Some(BreakerState::Open) => span class="status bad" { "open" },
                Some(state) => (status(state)),
            }
            @if let Some(since) = process.outage_since {
                " Stripe can't be used since " (time(since)) ": " (process.outage_reason.as_deref().unwrap_or_default())
                @if let Some(about) = &process.outage_about { " (noticed at " (about) ")" }
                @if let Some(at) = process.next_probe_at { ". Next probe " (time(at)) }
                "."
            }
        }
        td.number { @if let Some(rate) = calls_per_second { (format!("{rate:.1}")) } @else { "–" } }
        td.number { @if breaker.is_some() { (process.connected) " of " (process.consumers) } @else { "–" } }
        td.number { @if breaker.is_some() { (process.jobs_running) } @else { "–" } }
    }
}

fn paused(pause: &Pause, may_act: bool) -> Markup {
    html! {
        p.notice { strong { (pause.what()) } " since " (time(pause.created_at)) " by " (pause.operator) ": " (pause.reason) }
        @if may_act {
            form.stacked method="post" action={ "/ui/pauses/" (pause.id) "/resume" } {
                (reason())
                p { button.go type="submit" { "Resume " (pause.what()) } }
            }
        }
    }
}

/// `POST /ui/pauses`.
pub(super) async fn pause(State(ui): State<Ui>, Actor(session): Actor, Sent(mut fields): Sent) -> Answer {
    let (seller, note) = (fields.text("seller"), fields.note(&session.operator));
    let force = matches!(fields.parsed("force"), Some(YesNo(true)));
    fields.done()?;
    let pause = ui.ledger.pause(seller.as_deref(), force, &note).await?;
    Ok(done("Paused", &format!("{} is paused. Calls on their way are finished, the others wait.", pause.what())))
}

/// `POST /ui/pauses/{id}/resume`.
pub(super) async fn resume(
    State(ui): State<Ui>,
    Actor(session): Actor,
    Path(id): Path<String>,
    Sent(mut fields): Sent,
) -> Answer {
    let note = fields.note(&session.operator);
    fields.done()?;
    let id = id.parse().map_err(|_| Refusal::not_found("No pause has this id."))?;
    let (pause, due) = ui.ledger.resume(id, &note).await?;
    Ok(done("Resumed", &format!("{} goes on. Calls that are due: {due}; each gets a new job.", pause.what())))
}

/// `POST /ui/breaker/probe`.
pub(super) async fn probe(State(ui): State<Ui>, Actor(session): Actor, Sent(mut fields): Sent) -> Answer {
    let note = fields.note(&session.operator);
    fields.done()?;
    let workers = ui.ledger.ask_for_probe(&note).await?;
    Ok(done("Stripe is probed", &format!("Workers asked to probe Stripe now: {workers}. It takes a second or two.")))
}

fn done(title: &str, what: &str) -> Page {
    let body = html! {
        p.done role="status" { (what) " It is in the history with your name and reason." }
        p { a href="/ui/queues" { "Queues and workers" } " · " a href="/ui/audit" { "Audit" } }
    };
    Page::new(title, body)
}
