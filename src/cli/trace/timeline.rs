//! A trace as text of at most 80 columns: the events, oldest first, and how everything stands now.

use std::io::{Result, Write};

use crate::cli::output::wrap;
use crate::cli::reversals::{in_words, next_try};
use crate::cli::terminal::{plain, time};
use crate::ledger::{
    CallState, ClaimStatus, ReversalStatus, Situation, Trace, TraceEvent, TracedLookup, TracedRefund, TracedReversal,
    TracedTransfer, now,
};

/// Below the text of an event, beside its time.
const INDENT: &str = "              ";

pub(super) fn write(out: &mut impl Write, trace: &Trace, situation: &Situation) -> Result<()> {
    let mut day = None;
    for event in &trace.events {
        let date = event.at.date_naive();
        if day.replace(date) != Some(date) {
            writeln!(out, "{date} (UTC)")?;
        }
        entry(out, event)?;
    }
    writeln!(out, "\nNow, {} (amounts in minor units)", time(now()))?;
    for payment in &trace.payments {
        let text = format!("payment {}: {} {}", payment.payment_ref, payment.amount, payment.currency);
        wrap(out, "", "  ", &plain(&text))?;
    }
    for refund in &trace.refunds {
        wrap(out, "", "  ", &plain(&refund_now(refund)))?;
    }
    for transfer in &trace.transfers {
        wrap(out, "", "  ", &plain(&transfer_now(transfer)))?;
    }
    for reversal in &trace.reversals {
        wrap(out, "", "  ", &plain(&reversal_now(trace, reversal, situation)))?;
    }
    for lookup in &trace.lookups {
        wrap(out, "", "  ", &plain(&lookup_now(lookup)))?;
    }
    if !trace.complete {
        let more = "More hangs together with it than is shown: trace a refund or a transfer of it instead.";
        wrap(out, "", "", more)?;
    }
    Ok(())
}

fn entry(out: &mut impl Write, event: &TraceEvent) -> Result<()> {
    let change = match (&event.from, &event.to) {
        (Some(from), Some(to)) => format!(": {from} -> {to}"),
        (None, Some(to)) => format!(": {to}"),
        _ => String::new(),
    };
    let what = format!("{} {}{change}", event.entity, name(event));
    wrap(out, &format!("{}  ", event.at.format("%H:%M:%S%.3f")), INDENT, &plain(&what))?;
    let request = event.stripe_request_id.as_ref().map(|id| format!(" [{id}]")).unwrap_or_default();
    wrap(out, INDENT, INDENT, &plain(&format!("{}: {}{request}", event.actor, event.reason)))
}

/// The provider's id, or the end of ours: all that were made in the same moment begin in the same way.
fn name(event: &TraceEvent) -> String {
    match (&event.provider_id, event.entity.as_str()) {
        (Some(id), "webhook" | "payment" | "refund" | "dispute" | "transfer" | "lookup") => id.clone(),
        _ => {
            let id = event.entity_id.simple().to_string();
            format!("…{}", &id[id.len() - 8..])
        }
    }
}

fn refund_now(refund: &TracedRefund) -> String {
    let TracedRefund { id, kind, refund_ref, amount, currency, status, .. } = refund;
    let why = refund.status_reason.as_ref().filter(|_| *status != ClaimStatus::Matched);
    let why = why.map(|why| format!(", {why}")).unwrap_or_default();
    let to_do = refund.attention.as_ref().map(|to_do| format!("; to do: {to_do}")).unwrap_or_default();
    format!("{kind} {refund_ref} ({id}): {status}{why}; {amount} {currency}{to_do}")
}

fn transfer_now(transfer: &TracedTransfer) -> String {
    let TracedTransfer { id, status, amount, amount_reversed, currency, .. } = transfer;
    let name = transfer.stripe_transfer_id.as_deref().unwrap_or("not at Stripe");
    let failure = transfer.failure_message.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    let next = transfer.next_retry_at.map(|at| format!("; {}", next_try(at))).unwrap_or_default();
    let waiting = waiting(transfer.job_waiting_since);
    format!("transfer {name} ({id}): {status}, {amount_reversed} of {amount} {currency} back{failure}{next}{waiting}")
}

fn reversal_now(trace: &Trace, traced: &TracedReversal, situation: &Situation) -> String {
    let reversal = &traced.reversal;
    let transfer = trace.transfers.iter().find(|transfer| transfer.id == reversal.transfer_id);
    let at_stripe = transfer.and_then(|transfer| transfer.stripe_transfer_id.clone());
    let exists = at_stripe.is_some();
    let of = at_stripe.map(|id| format!(" of {id}")).unwrap_or_default();
    let retries = match reversal.retry_count {
        0 => String::new(),
        1 => ", 1 retry used".to_owned(),
        count => format!(", {count} retries used"),
    };
    let more = in_words(reversal).map(|more| format!("; {more}")).unwrap_or_default();
    let next = match (reversal.status, reversal.next_retry_at) {
        (ReversalStatus::Pending, None) if !exists => "; waits for its transfer to be created",
        (ReversalStatus::Pending, None) if traced.job_waiting_since.is_none() => "; its job is under way",
        (ReversalStatus::PermanentlyFailed, _) => "; no further try until it is replayed: clawback reversals replay ID",
        _ => "",
    };
    let waiting = waiting(traced.job_waiting_since);
    let why = situation.why_waiting(transfer.map(|transfer| transfer.destination.as_str()));
    let why = why.filter(|_| reversal.status == ReversalStatus::Pending).map(|why| format!("; it waits: {why}"));
    let why = why.unwrap_or_default();
    let (id, status, amount, currency) = (reversal.id, reversal.status, reversal.amount, &reversal.currency);
    format!("reversal {id}: {status}, {amount} {currency}{of}{retries}{more}{next}{waiting}{why}")
}

fn lookup_now(lookup: &TracedLookup) -> String {
    let TracedLookup { id, subject, reference, state, .. } = lookup;
    let said = if *state == CallState::Done { &lookup.result } else { &lookup.failure_message };
    let said = said.as_ref().map(|said| format!("; {said}")).unwrap_or_default();
    let next = lookup.next_attempt_at.map(|at| format!("; {}", next_try(at))).unwrap_or_default();
    format!("lookup {subject} {reference} ({id}): {state}{said}{next}{}", waiting(lookup.job_waiting_since))
}

fn waiting(since: Option<chrono::DateTime<chrono::Utc>>) -> String {
    since.map(|since| format!("; its job waits for the relay since {}", time(since))).unwrap_or_default()
}
