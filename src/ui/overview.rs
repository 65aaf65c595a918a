//! `/ui/`: money first, then what needs somebody. Each figure links to the list that it sums.

use axum::extract::State;
use maud::{Markup, html};

use super::Ui;
use super::claims;
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{ago, counted, facts, query, status, table};
use super::input::Asked;
use super::money::{sum, text};
use super::page::{Answer, Page};
use super::parked::table_of;
use crate::ledger::{Amounts, ClaimKind, Totals, WaitingClaims};

/// `GET /ui/`.
pub(super) async fn show(State(ui): State<Ui>, Visitor(session): Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let (totals, groups) = tokio::try_join!(ui.ledger.totals(), ui.ledger.failed_groups())?;
    let money: Vec<Markup> = totals.amounts.iter().map(|(currency, amounts)| row(currency, amounts)).collect();
    let waiting: Vec<Markup> = totals.waiting.iter().map(of_claims).collect();
    let body = html! {
        section aria-labelledby="risk" {
            h2 id="risk" { "Money at risk" }
            @if money.is_empty() { p { "Nothing has been asked back yet." } } @else {
                (table("By currency", &[Text("Currency"), Number("On its way"), Number("Next try ahead"), Number("Failed, still owed"), Number("Back")], &money))
            }
            @if let Some(oldest) = totals.oldest_open { p { "The oldest debt that is still open is " (ago(oldest)) " old." } }
        }
        section aria-labelledby="claims" {
            h2 id="claims" { "Refunds and disputes that take nothing yet" }
            @if waiting.is_empty() { p { "None." } } @else {
                (table("Unmatched, held and conflicting", &[Text("What"), Text("Status"), Number("Sum"), Text("Oldest")], &waiting))
            }
            (attention(&totals))
        }
        section aria-labelledby="failed" {
            h2 id="failed" { "Failed and still owed, by reason" }
            @if groups.is_empty() { p { "Nothing has failed permanently." } } @else { (table_of(&session, &groups)) }
        }
        section aria-labelledby="moving" {
            h2 id="moving" { "Is money moving?" }
            (facts(&moving(&totals)))
        }
    };
    Ok(Page::new("Overview", body))
}

fn row(currency: &str, amounts: &Amounts) -> Markup {
    let cell = |amount: f64, filter: &[(&str, &str)]| {
        let filter: Vec<_> = filter.iter().copied().chain([("currency", currency)]).collect();
        html! { td.number { a href={ "/ui/reversals" (query(&filter)) } { (text(sum(amount), currency)) } } }
    };
    html! {
        th scope="row" { (currency.to_uppercase()) }
        (cell(amounts.pending, &[("status", "pending"), ("waits", "no")]))
        (cell(amounts.waiting, &[("status", "pending"), ("waits", "yes")]))
        (cell(amounts.parked, &[("status", "permanently_failed")]))
        (cell(amounts.reversed, &[("status", "reversed")]))
    }
}

fn of_claims(of: &WaitingClaims) -> Markup {
    let filter = [("status", of.status.to_string()), ("currency", of.currency.clone())];
    let filter = filter.each_ref().map(|(name, value)| (*name, value.as_str()));
    html! {
        th scope="row" { (claims::link(of.kind, of.number, &filter)) }
        td { (status(of.status)) }
        td.number { (text(sum(of.amount), &of.currency)) }
        td { (ago(of.oldest)) }
    }
}

fn attention(totals: &Totals) -> Markup {
    let of = [
        (ClaimKind::Refund, totals.refunds_needing_attention),
        (ClaimKind::Dispute, totals.disputes_needing_attention),
    ];
    html! {
        @for (kind, number) in of {
            @if number > 0 {
                p.notice {
                    a href={ (claims::path(kind)) "?attention=yes" } { (counted(number, &kind.to_string())) }
                    " need" @if number == 1 { "s" } " somebody's attention."
                }
            }
        }
    }
}

fn moving(totals: &Totals) -> Vec<(&'static str, Markup)> {
    let of = |counts: &std::collections::BTreeMap<String, u64>, status: &str| counts.get(status).copied().unwrap_or(0);
    let list = |path: &str, status: &str, number: u64| html! { a href={ (path) "?status=" (status) } { (number) } };
    let reversals = |status| list("/ui/reversals", status, of(&totals.reversals, status));
    let jobs = html! {
        (totals.unpublished)
        @if let Some(oldest) = totals.oldest_unpublished { ", the oldest " (ago(oldest)) " old" }
    };
    vec![
        ("Reversals pending", reversals("pending")),
        ("Reversed", reversals("reversed")),
        ("Failed permanently", reversals("permanently_failed")),
        ("Closed", reversals("closed")),
        ("Jobs waiting for the broker", jobs),
        ("Queues and consumers", html! { a href="/ui/queues" { "Ask the broker" } }),
    ]
}
