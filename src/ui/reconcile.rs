//! `/ui/reconcile`: when the ledger was compared with Stripe, what was compared, and what differs.

use axum::extract::{Path, State};
use maud::{Markup, html};

use super::Ui;
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{ROWS, ago, facts, own, pages, status, story, table, time};
use super::input::Asked;
use super::money::money;
use super::page::{Answer, Page, Refusal};
use crate::http::Cursor;
use crate::ledger::{DifferenceView, RunState, RunView};
use crate::reconcile::Kind;

const PATH: &str = "/ui/reconcile";

/// `GET /ui/reconcile`.
pub(super) async fn list(State(ui): State<Ui>, _: Visitor, Asked(mut fields): Asked) -> Answer {
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    fields.done()?;
    let (found, next) = ui.ledger.reconcile_runs(cursor, ROWS).await?;
    let rows: Vec<Markup> = found.iter().map(row).collect();
    let heads = [
        Text("Run"),
        Text("State"),
        Text("Of"),
        Number("Transfers compared"),
        Number("Differences"),
        Number("Recorded"),
        Text("By"),
    ];
    let body = html! {
        p {
            code { "clawback reconcile" } " compares every transfer with Stripe, at its own pace; " code { "--resume" }
            " goes on with a run that was interrupted."
        }
        @if rows.is_empty() { p { "The ledger was never compared with Stripe." } }
        @else { (table("Runs, newest first", &heads, &rows)) }
        (pages(PATH, &[], cursor.is_none(), next))
    };
    Ok(Page::new("Reconcile", body))
}

fn row(run: &RunView) -> Markup {
    html! {
        th scope="row" { a href={ (PATH) "/" (run.id) } { (time(run.started_at)) } }
        td { (state(run)) }
        td { (scope(run)) }
        td.number { (run.counts.transfers) }
        td.number { (run.differences) }
        td.number { (run.repaired) }
        td { (run.operator) }
    }
}

/// `GET /ui/reconcile/{id}`.
pub(super) async fn show(State(ui): State<Ui>, _: Visitor, Path(id): Path<String>, Asked(mut fields): Asked) -> Answer {
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    fields.done()?;
    let unknown = || Refusal::not_found("There is no such run of reconcile.");
    let id = id.parse().map_err(|_| unknown())?;
    let run = ui.ledger.reconcile_run(id).await?.ok_or_else(unknown)?;
    let (found, next) = ui.ledger.run_differences(id, cursor, ROWS).await?;
    let rows: Vec<Markup> = found.iter().map(difference).collect();
    let mut kinds: Vec<Kind> = found.iter().filter_map(|difference| difference.kind.parse().ok()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let heads = [Text("Transfer"), Text("What"), Number("Ledger"), Number("Stripe"), Text("Reversal"), Text("Detail")];
    let here = format!("{PATH}/{id}");
    let body = html! {
        (facts(&about(&run)))
        @if let Some(problem) = &run.problem { p.notice { "It could not go on: " (problem) } }
        @if rows.is_empty() {
            p { @if run.counts.transfers == 0 { "Nothing was compared." } @else { "What was compared agrees." } }
        } @else {
            (table("What differs, in the order of the transfers", &heads, &rows))
            @for kind in kinds { p.help { strong { (kind) } ": " (kind.what_to_do()) } }
        }
        (pages(&here, &[], cursor.is_none(), next))
        p { a href=(PATH) { "All runs" } }
    };
    Ok(Page::new(format!("Reconcile of {}", run.started_at.format("%F %T")), body))
}

fn about(run: &RunView) -> Vec<(&'static str, Markup)> {
    let counts = &run.counts;
    let mut all = vec![
        ("State", state(run)),
        ("Of", scope(run)),
        ("Transfers compared", html! { (counts.transfers) }),
        ("Without a Stripe id, left out", html! { (counts.transfers_without_stripe_id) }),
        (
            "Reversals",
            html! { (counts.agreed) " agree, " (counts.on_their_way) " on their way, " (counts.given_up) " failed permanently" },
        ),
        ("Differences", html! { (run.differences) ", " (run.repaired) " of them recorded" }),
        ("By", html! { (run.operator) }),
        ("Began", time(run.started_at)),
    ];
    all.push(match run.finished_at {
        Some(at) => ("Ended", html! { (time(at)) ", " (ago(at)) " ago" }),
        None => ("Last page", html! { (time(run.updated_at)) ", " (ago(run.updated_at)) " ago" }),
    });
    all
}

fn state(run: &RunView) -> Markup {
    html! {
        (status(run.state))
        @if run.state == RunState::Running { " " small { "last page " (ago(run.updated_at)) " ago" } }
    }
}

fn scope(run: &RunView) -> Markup {
    html! {
        @match run.since { Some(since) => { "changed since " (time(since)) }, None => "all transfers" }
        @if run.fix { ", with --fix" }
    }
}

fn difference(found: &DifferenceView) -> Markup {
    let amount = |amount: Option<i64>| html! { @if let Some(amount) = amount { (money(amount, &found.currency)) } };
    html! {
        th scope="row" {
            @if found.stripe_transfer_id.is_empty() { (own(found.transfer_id)) } @else { (story(&found.stripe_transfer_id)) }
        }
        td { (status(&found.kind)) br; small { (found.repair.replace('_', " ")) } }
        td.number { (amount(found.amount_in_ledger)) }
        td.number { (amount(found.amount_at_stripe)) }
        td {
            @if let Some(id) = found.reversal_id { (own(id)) " " }
            @if let Some(id) = &found.stripe_reversal_id { (id) }
        }
        td { small { (found.detail) } }
    }
}
