//! `/ui/trace?id=`: everything that hangs together with an id: how it stands, what happens next, and what happened.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::Ui;
use super::act::{Verb, button};
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{dashboard, own, query, search, status, story, table, time};
use super::input::{AsText, Asked};
use super::money::money;
use super::next::{next, transfer_of};
use super::page::{Page, Refusal};
use super::session::Session;
use crate::ledger::{
    CallState, ClaimStatus, ReversalStatus, Trace, TraceEvent, TracedLookup, TracedRefund, TracedReversal,
    TracedTransfer, TransferStatus, now,
};

/// The most rows of each kind: a payment may have hundreds of sellers.
pub(super) const SHOWN: usize = 20;
/// The most that are read for it.
const READ: usize = 200;

/// `GET /ui/trace?id=`.
pub(super) async fn show(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    Asked(mut fields): Asked,
) -> Result<Response, Refusal> {
    let id = fields.text("id");
    let as_text = fields.parsed::<AsText>("format").is_some();
    fields.done()?;
    let Some(id) = id else {
        let body = html! {
            (search("/ui/trace", "Any id", None))
            p {
                "A refund (re_…), dispute (du_…), payment (pi_…, ch_…), transfer (tr_…), reversal (trr_…), webhook event (evt_…), \
                 a Request-Id of Stripe's (req_…), or an id of Clawback's own."
            }
        };
        return Ok(Page::new("Trace", body).into_response());
    };
    let Some(trace) = ui.ledger.trace(&id, if as_text { Trace::MOST } else { READ }).await? else {
        return Err(Refusal::not_found(format!("Nothing here has the id {id:?}.")));
    };
    let situation = ui.ledger.situation().await?;
    if as_text {
        return Ok((ui.story)(&trace, &situation).into_response());
    }
    let events = rows(&trace.events, |event| happened(&ui, event));
    let body = html! {
        p.help { a href={ "/ui/trace" (query(&[("id", &id), ("format", "text")])) } { "As text, to copy: all of it" } }
        @if !trace.complete { p.notice { "More hangs together with it than is read here: look for a refund or a transfer of it instead." } }
        (next(&trace, &situation))
        (stands(&ui, &session, &trace))
        h2 { "What happened" }
        @if trace.events.len() > SHOWN {
            p { "The first " (SHOWN) " of " (trace.events.len()) "; " a href={ "/ui/audit" (query(&[("id", &id)])) } { "all changes, newest first" } "." }
        }
        (table("Oldest first", &[Text("When"), Text("What"), Text("Change"), Text("Who"), Text("Why")], &events))
    };
    Ok(Page::new(format!("The story of {id}"), body).into_response())
}

/// How everything stands now.
fn stands(ui: &Ui, session: &Session, trace: &Trace) -> Markup {
    let at_stripe = |id: &str| html! { @if let Some(link) = dashboard(&ui.instance, id) { " " small { (link) } } };
    html! {
        @if !trace.payments.is_empty() {
            h2 { "Payment" }
            ul.plain { @for payment in &trace.payments {
                li { (story(&payment.payment_ref)) " of " (money(payment.amount, &payment.currency)) (at_stripe(&payment.payment_ref)) }
            } }
        }
        @if !trace.refunds.is_empty() {
            h2 { "Refunds and disputes" }
            (table("Refunds and disputes as they stand now", &[Text("Claim"), Text("Status"), Number("Amount"), Text("What to do")], &rows(&trace.refunds, |row| claim(session, row, &at_stripe(&row.refund_ref)))))
            (more(trace.refunds.len()))
        }
        @if !trace.transfers.is_empty() {
            h2 { "Transfers" }
            (table("Transfers as they stand now", &[Text("Transfer"), Text("Status"), Number("Amount"), Number("Back"), Text("What happens next")], &rows(&trace.transfers, |row| {
                let link = row.stripe_transfer_id.as_deref().map(at_stripe).unwrap_or_default();
                transfer(session, row, &link)
            })))
            (more(trace.transfers.len()))
        }
        @if !trace.reversals.is_empty() {
            h2 { "Reversals" }
            (table("Reversals as they stand now", &[Text("Reversal"), Text("Status"), Number("Amount"), Text("For"), Number("Retries"), Text("What happens next")], &rows(&trace.reversals, |row| reversal(session, trace, row))))
            (more(trace.reversals.len()))
        }
        @if !trace.lookups.is_empty() {
            h2 { "Look-ups at Stripe" }
            (table("Look-ups as they stand now", &[Text("Subject"), Text("Status"), Text("Result")], &rows(&trace.lookups, lookup)))
            (more(trace.lookups.len()))
        }
    }
}

fn rows<T>(of: &[T], row: impl Fn(&T) -> Markup) -> Vec<Markup> {
    of.iter().take(SHOWN).map(row).collect()
}

fn more(all: usize) -> Markup {
    html! { @if all > SHOWN { p { (all - SHOWN) " more are in the text." } } }
}

fn claim(session: &Session, claim: &TracedRefund, link: &Markup) -> Markup {
    let id = claim.id.to_string();
    let why = claim.status_reason.as_ref().filter(|_| claim.status != ClaimStatus::Matched);
    html! {
        th scope="row" { (claim.kind) " " (story(&claim.refund_ref)) (link) }
        td { (status(claim.status)) @if let Some(why) = why { br; small { (why) } } }
        td.number { (money(claim.amount, &claim.currency)) }
        td {
            @if let Some(to_do) = &claim.attention { (to_do) " " (button(session, Verb::Acknowledge, &id)) }
            @if matches!(claim.status, ClaimStatus::Held | ClaimStatus::Conflicting) { " " (button(session, Verb::Accept, &id)) }
        }
    }
}

fn transfer(session: &Session, transfer: &TracedTransfer, link: &Markup) -> Markup {
    let is_created = transfer.stripe_transfer_id.is_some();
    html! {
        th scope="row" {
            @if let Some(id) = &transfer.stripe_transfer_id { (story(id)) } @else { (own(transfer.id)) " (not created)" }
            (link)
        }
        td { (status(transfer.status)) }
        td.number { (money(transfer.amount, &transfer.currency)) }
        td.number { (money(transfer.amount_reversed, &transfer.currency)) }
        td {
            @if !is_created && let Some(why) = &transfer.failure_message { (why) ". " }
            @if let Some(at) = transfer.next_retry_at { (next_try(at)) }
            (waiting(transfer.job_waiting_since))
            @if !is_created && transfer.status == TransferStatus::PermanentlyFailed {
                "The seller was not paid. No further try until it is retried. "
                (button(session, Verb::Retry, &transfer.id.to_string()))
            }
        }
    }
}

fn reversal(session: &Session, trace: &Trace, traced: &TracedReversal) -> Markup {
    let reversal = &traced.reversal;
    let is_created = transfer_of(trace, traced).is_some_and(|transfer| transfer.stripe_transfer_id.is_some());
    let id = reversal.id.to_string();
    html! {
        th scope="row" {
            (own(reversal.id))
            @if let Some(trr) = &reversal.stripe_reversal_id { " " (trr) }
        }
        td { (status(reversal.status)) }
        td.number { (money(reversal.amount, &reversal.currency)) }
        td { (story(&reversal.refund_ref)) }
        td.number { (reversal.retry_count) }
        td {
            @if reversal.status != ReversalStatus::Reversed && let Some(code) = &reversal.failure_code {
                (code) ": " (reversal.failure_message.as_deref().unwrap_or("no words")) ". "
            }
            @if reversal.amount_closed > 0 { (money(reversal.amount_closed, &reversal.currency)) " were settled elsewhere. " }
            @match (reversal.status, reversal.next_retry_at) {
                (ReversalStatus::Pending, Some(at)) => (next_try(at)),
                (ReversalStatus::Pending, None) if !is_created => "It waits for its transfer to be created. ",
                (ReversalStatus::Pending, None) if traced.job_waiting_since.is_none() => "Its job is under way. ",
                (ReversalStatus::PermanentlyFailed, _) => {
                    "No further try until it is replayed. " (button(session, Verb::Replay, &id)) " " (button(session, Verb::Close, &id))
                },
                (ReversalStatus::Reversed, _) if reversal.externally_reversed => "Taken back by another program. Nothing more.",
                (ReversalStatus::Reversed, _) => "The money is back. Nothing more.",
                _ => {},
            }
            (waiting(traced.job_waiting_since))
        }
    }
}

fn lookup(lookup: &TracedLookup) -> Markup {
    let said = if lookup.state == CallState::Done { &lookup.result } else { &lookup.failure_message };
    html! {
        th scope="row" { (lookup.subject) " " (story(&lookup.reference)) }
        td { (status(lookup.state)) }
        td {
            (said.as_deref().unwrap_or_default())
            @if let Some(at) = lookup.next_attempt_at { " " (next_try(at)) }
            (waiting(lookup.job_waiting_since))
        }
    }
}

/// A time that has come is no promise any more.
fn next_try(at: chrono::DateTime<chrono::Utc>) -> Markup {
    html! { @if at > now() { "Next try " } @else { "Due since " } (time(at)) ". " }
}

fn waiting(since: Option<chrono::DateTime<chrono::Utc>>) -> Markup {
    html! { @if let Some(since) = since { "Its job waits for the broker since " (time(since)) "." } }
}

fn happened(ui: &Ui, event: &TraceEvent) -> Markup {
    html! {
        td { (time(event.at)) }
        th scope="row" {
            (event.entity) " "
            @match &event.provider_id {
                Some(id) => (id),
                None => (own(event.entity_id)),
            }
        }
        td {
            @if let Some(from) = &event.from { (status(from)) " → " }
            @if let Some(to) = &event.to { (status(to)) }
        }
        td { (event.actor) }
        td {
            (event.reason)
            @if let Some(id) = &event.stripe_request_id {
                " " small { @if let Some(link) = dashboard(&ui.instance, id) { (link) } @else { (id) } }
            }
        }
    }
}
