//! `/ui/`: money first, then what needs somebody. Each figure links to the list that it sums.

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::Ui;
use super::chart::{Bar, bars};
use super::claims;
use super::failures;
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{Head, ago, counted, facts, moment, own, query, status, table, time};
use super::input::Asked;
use super::money::{money, text};
use super::page::{Answer, Page};
use crate::ledger::{
    AtRisk, ByAge, ClaimKind, CurrencySummary, DaySum, NeedsAttention, ReversalStatus, Risk, RunState, Situation, Sum,
    Summary, Unpaid,
};

const AT_RISK: [Head; 9] = [
    Text("Currency"),
    Text("Why"),
    Number("How much (how many)"),
    Text("Oldest"),
    Number("Under 1 hour"),
    Number("1 day"),
    Number("7 days"),
    Number("30 days"),
    Number("Older"),
];
const TAKEN_BACK: [Head; 4] = [Text("Currency"), Number("Today"), Number("7 days"), Number("30 days")];
const UNPAID: [Head; 5] =
    [Text("Currency"), Number("How much"), Number("Sellers"), Number("Transfers"), Text("Oldest")];

/// The most currencies that have charts.
const CHARTED: usize = 3;

/// `GET /ui/`.
pub(super) async fn show(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let (summary, failures) = tokio::try_join!(ui.ledger.summary(), failures::groups(&ui, &session))?;
    let situation = ui.ledger.situation().await?;
    let at_risk: Vec<Markup> = summary.currencies.iter().flat_map(|of| at_risk(of, summary.as_of)).collect();
    let taken_back: Vec<Markup> = summary.currencies.iter().map(|of| taken_back(of, summary.as_of)).collect();
    let unpaid: Vec<Markup> = summary.unpaid.iter().map(unpaid).collect();
    let body = html! {
        section aria-labelledby="risk" {
            h2 id="risk" { "Money at risk" }
            (attention(&summary.needs_attention))
            @if at_risk.is_empty() { p { "Nothing is owed." } } @else { (table("What is not back yet, by reason and age", &AT_RISK, &at_risk)) }
            p { a href="/ui/sellers?debt=open" { "Sellers who owe" } }
            @for of in charted(&summary) { (ages(of)) }
            @if let Some(oldest) = summary.oldest_open {
                p { "The oldest debt that is still open, " (own(oldest.reversal_id)) ", is " (ago(oldest.created_at)) " old." }
            }
            p.help { "As of " (time(summary.as_of)) "." }
        }
        @if !unpaid.is_empty() {
            section aria-labelledby="unpaid" {
                h2 id="unpaid" { "Sellers not paid" }
                (table("Transfers that could not be created", &UNPAID, &unpaid))
            }
        }
        section aria-labelledby="failed" {
            h2 id="failed" { "Failed and still owed, by reason" }
            (failures)
        }
        section aria-labelledby="moving" {
            h2 id="moving" { "Is money moving?" }
            @if !taken_back.is_empty() { (table("Taken back", &TAKEN_BACK, &taken_back)) }
            @for of in charted(&summary) { (by_day(of)) }
            (facts(&moving(&summary, &situation)))
        }
    };
    Ok(Page::new("Overview", body))
}

fn at_risk(of: &CurrencySummary, as_of: DateTime<Utc>) -> impl Iterator<Item = Markup> {
    of.at_risk.iter().filter(|at_risk| at_risk.count > 0).map(move |at_risk| risk(&of.currency, at_risk, as_of))
}

fn risk(currency: &str, at_risk: &AtRisk, as_of: DateTime<Utc>) -> Markup {
    let AtRisk { reason, count, amount, oldest, by_age } = at_risk;
    let ByAge { under_1_hour, under_1_day, under_7_days, under_30_days, older } = by_age;
    let back = |age| Some(moment(as_of - age));
    let [hour, day, week, month] = [TimeDelta::hours(1), TimeDelta::days(1), TimeDelta::days(7), TimeDelta::days(30)];
    let ages = [
        (under_1_hour, back(hour), None),
        (under_1_day, back(day), back(hour)),
        (under_7_days, back(week), back(day)),
        (under_30_days, back(month), back(week)),
        (older, None, back(month)),
    ];
    let all = Sum { count: *count, amount: *amount };
    html! {
        th scope="row" { (currency.to_uppercase()) }
        td { @if *reason == Risk::Failed { (status(ReversalStatus::PermanentlyFailed)) } @else { (status(reason)) } }
        td.number { (listed(*reason, currency, all, [None, None])) }
        td { @if let Some(oldest) = oldest { (ago(*oldest)) } }
        @for (sum, since, until) in ages {
            td.number { @if sum.count > 0 { (listed(*reason, currency, *sum, [since.as_deref(), until.as_deref()])) } }
        }
    }
}

/// A sum, with links to the rows that it is of: since a time, before another one.
fn listed(reason: Risk, currency: &str, sum: Sum, times: [Option<&str>; 2]) -> Markup {
    let of_claim = reason.to_string();
    let (status, which) = match reason {
        Risk::Pending => ("pending", ("waits", "no")),
        Risk::WaitingForBalance => ("pending", ("waits", "yes")),
        Risk::Failed => ("permanently_failed", ("owed", "yes")),
        Risk::Held | Risk::Unmatched | Risk::Conflicting => (of_claim.as_str(), ("acknowledged", "no")),
    };
    let [since, until] = times.map(Option::unwrap_or_default);
    let list = query(&[("status", status), which, ("currency", currency), ("since", since), ("until", until)]);
    let amount = money(sum.amount, currency);
    match reason {
        Risk::Pending | Risk::WaitingForBalance | Risk::Failed => {
            html! { a href={ "/ui/reversals" (list) } { (amount) " " small { "(" (sum.count) ")" } } }
        }
        Risk::Held | Risk::Unmatched | Risk::Conflicting => html! {
            (amount) " " small { "(" (sum.count) ": "
                a href={ (claims::path(ClaimKind::Refund)) (list) } { "refunds" } ", "
                a href={ (claims::path(ClaimKind::Dispute)) (list) } { "disputes" } ")"
            }
        },
    }
}

/// The currencies with charts: those with most reversals.
fn charted(summary: &Summary) -> Vec<&CurrencySummary> {
    let mut all: Vec<&CurrencySummary> = summary.currencies.iter().collect();
    all.sort_by_key(|of| std::cmp::Reverse(of.taken_back_30_days.count));
    all.truncate(CHARTED);
    all
}

/// At risk by age; its table is the one above.
fn ages(of: &CurrencySummary) -> Markup {
    let sum =
        |age: fn(&ByAge) -> Sum| of.at_risk.iter().fold(0_i64, |sum, of| sum.saturating_add(age(&of.by_age).amount));
    let sums = [
        ("under 1 hour", sum(|of| of.under_1_hour)),
        ("1 day", sum(|of| of.under_1_day)),
        ("7 days", sum(|of| of.under_7_days)),
        ("30 days", sum(|of| of.under_30_days)),
        ("older", sum(|of| of.older)),
    ];
    let bar =
        |(label, value): (&str, i64)| Bar { label: label.to_owned(), value, text: text(value.into(), &of.currency) };
    let name = format!("{} at risk by age", of.currency.to_uppercase());
    let chart = bars(&name, &sums.map(bar));
    html! { @if !chart.0.is_empty() { figure { figcaption { (name) } (chart) } } }
}

/// What was taken back on each of the last 30 days.
fn by_day(of: &CurrencySummary) -> Markup {
    let bar = |DaySum { day, sum }: &DaySum| Bar {
        label: day.to_string(),
        value: sum.amount,
        text: text(sum.amount.into(), &of.currency),
    };
    let name = format!("{} taken back, day by day", of.currency.to_uppercase());
    let chart = bars(&name, &of.taken_back_by_day.iter().map(bar).collect::<Vec<_>>());
    let row = |DaySum { day, sum }: &DaySum| {
        html! { th scope="row" { (day) } td.number { (money(sum.amount, &of.currency)) } td.number { (sum.count) } }
    };
    let rows: Vec<Markup> = of.taken_back_by_day.iter().rev().filter(|of| of.sum.count > 0).map(row).collect();
    html! {
        @if !chart.0.is_empty() {
            figure {
                figcaption { (name) }
                (chart)
                details { summary { "As a table" } (table(&name, &[Text("Day"), Number("How much"), Number("Reversals")], &rows)) }
            }
        }
    }
}

fn sum_of(sum: Sum, currency: &str) -> Markup {
    html! { (money(sum.amount, currency)) " " small { "(" (sum.count) ")" } }
}

fn taken_back(of: &CurrencySummary, as_of: DateTime<Utc>) -> Markup {
    // Days of UTC, today's among them.
    let first = |days: i64| (as_of.date_naive() - TimeDelta::days(days - 1)).to_string();
    let list = |since: &str| {
        let of = [("status", "reversed"), ("currency", of.currency.as_str()), ("changed_since", since)];
        format!("/ui/reversals{}", query(&of))
    };
    let sums = [(of.taken_back_today, 1), (of.taken_back_7_days, 7), (of.taken_back_30_days, 30)];
    html! {
        th scope="row" { (of.currency.to_uppercase()) }
        @for (sum, days) in sums { td.number { a href=(list(&first(days))) { (sum_of(sum, &of.currency)) } } }
    }
}

fn unpaid(of: &Unpaid) -> Markup {
    let list = query(&[("not_created", "yes"), ("currency", &of.currency)]);
    html! {
        th scope="row" { (of.currency.to_uppercase()) }
        td.number { (text(of.amount.into(), &of.currency)) }
        td.number { (of.sellers) }
        td.number { a href={ "/ui/transfers" (list) } { (of.transfers) } }
        td { (ago(of.oldest)) }
    }
}

fn attention(of: &NeedsAttention) -> Markup {
    html! {
        @for (kind, number) in [(ClaimKind::Refund, of.refunds), (ClaimKind::Dispute, of.disputes)] {
            @if number > 0 {
                p.notice {
                    a href={ (claims::path(kind)) "?attention=yes" } { (counted(number, &kind.to_string())) }
                    " need" @if number == 1 { "s" } " somebody's attention."
                }
            }
        }
    }
}

fn moving(summary: &Summary, situation: &Situation) -> Vec<(&'static str, Markup)> {
    let took = match summary.time_to_reverse {
        None => html! { "nothing in the last 24 hours" },
        Some(took) => html! {
            (seconds(took.p50_seconds)) ", " (seconds(took.p95_seconds)) ", " (seconds(took.p99_seconds))
            " (" (counted(i128::from(took.measured), "reversal")) " of the last 24 hours)"
        },
    };
    let reversed = html! {
        @if let Some(at) = summary.last_reversal_at { (ago(at)) " ago" } @else { "none yet" }
        ", " (format!("{:.1}", summary.reversed_per_minute)) " a minute over the last 5 minutes"
    };
    let webhook = html! { @if let Some(at) = summary.last_webhook_at { (ago(at)) " ago" } @else { "none yet" } };
    let reconcile = html! {
        @match &summary.last_reconcile {
            None => a href="/ui/reconcile" { "never" },
            Some(run) => {
                a href={ "/ui/reconcile/" (run.id) } { (ago(run.finished_at.unwrap_or(run.updated_at))) " ago" }
                ": " (run.counts.transfers) " compared, " (counted(i128::from(run.differences - run.repaired), "difference")) " left"
                @if run.state != RunState::Done { ", " (status(run.state)) }
            }
        }
    };
    vec![
        ("From report to reversal: half, 95 %, 99 % take at most", took),
        ("Last reversal", reversed),
        ("Last webhook", webhook),
        ("Workers alive", alive(situation)),
        ("Last compared with Stripe", reconcile),
        ("Queues, consumers and outbox", html! { a href="/ui/queues" { "Ask the broker" } }),
    ]
}

fn alive(situation: &Situation) -> Markup {
    let workers = situation.processes.workers().count();
    let waiting = situation.processes.workers().filter(|process| process.outage_since.is_some()).count();
    html! {
        a href="/ui/queues#alive" { (workers) }
        @if waiting > 0 { ", of which " (waiting) " wait for Stripe" }
        @if !situation.pauses.is_empty() { ", " a href="/ui/queues#pauses" { "some calls are paused" } }
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.1} s"),
        60.0..3_600.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}
