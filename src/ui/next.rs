//! What happens next in a story, and when: a part of `/ui/trace`.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::html::{own, story, time};
use super::trace::SHOWN;
use crate::ledger::{
    CallState, ClaimStatus, ReversalStatus, Situation, Trace, TracedReversal, TracedTransfer, TransferStatus, now,
};

/// What happens next, and when, in a line for each thing that is not at its end.
pub(super) fn next(trace: &Trace, situation: &Situation) -> Markup {
    let mut lines = Vec::new();
    for traced in &trace.reversals {
        let (name, of) = (own(traced.reversal.id), transfer_of(trace, traced));
        lines.extend(match traced.reversal.status {
            ReversalStatus::Pending if of.is_none_or(|of| of.stripe_transfer_id.is_none()) => {
                Some(html! { "The reversal " (name) " waits for its transfer to be created." })
            }
            ReversalStatus::Pending => {
                let why = situation.why_waiting(of.map(|of| of.destination.as_str()));
                let when = when(traced.reversal.next_retry_at, traced.job_waiting_since);
                Some(
                    html! { "The reversal " (name) " " (when) "." @if let Some(why) = why { " It waits: " (why) "." } },
                )
            }
            ReversalStatus::PermanentlyFailed => {
                Some(html! { "The reversal " (name) " waits for you: replay it, or close it." })
            }
            _ => None,
        });
    }
    for transfer in trace.transfers.iter().filter(|transfer| transfer.stripe_transfer_id.is_none()) {
        let name = own(transfer.id);
        lines.extend(match transfer.status {
            TransferStatus::Pending | TransferStatus::Failed => {
                let why = situation.why_waiting(Some(&transfer.destination));
                let when = when(transfer.next_retry_at, transfer.job_waiting_since);
                Some(html! { "Creating the transfer " (name) " " (when) "." @if let Some(why) = why { " It waits: " (why) "." } })
            }
            TransferStatus::PermanentlyFailed => {
                Some(html! { "The transfer " (name) " was not created, and waits for you: retry it." })
            }
            _ => None,
        });
    }
    for lookup in trace.lookups.iter().filter(|lookup| lookup.state == CallState::Open) {
        let when = when(lookup.next_attempt_at, lookup.job_waiting_since);
        lines.push(html! { "The look-up of " (lookup.reference) " at Stripe " (when) "." });
    }
    for claim in &trace.refunds {
        let name = html! { "The " (claim.kind) " " (story(&claim.refund_ref)) };
        let why = claim.attention.as_deref().or(claim.status_reason.as_deref());
        lines.extend(match (claim.status, why) {
            (ClaimStatus::Held, why) => Some(html! { (name) " waits for you: " (why.unwrap_or("it is held")) "." }),
            (_, Some(why)) if claim.attention.is_some() => Some(html! { (name) " waits for you: " (why) "." }),
            (ClaimStatus::Unmatched, _) => Some(html! { (name) " waits until its payment is registered." }),
            _ => None,
        });
    }
    html! {
        h2 { "What happens next" }
        @if lines.is_empty() { p { "Nothing: everything here has come to its end." } }
        @else {
            ul {
                @for line in lines.iter().take(SHOWN) { li { (line) } }
                @if lines.len() > SHOWN { li { "and " (lines.len() - SHOWN) " more" } }
            }
        }
    }
}

/// When something that is open is tried.
fn when(at: Option<DateTime<Utc>>, waits: Option<DateTime<Utc>>) -> Markup {
    match (at, waits) {
        (Some(at), _) if at > now() => html! { "is tried again at " (time(at)) },
        (Some(_), _) => html! { "is tried again now, or as soon as Stripe can be used" },
        (None, Some(since)) => html! { "has a job that waits for the broker since " (time(since)) },
        (None, None) => html! { "has a job under way" },
    }
}

/// The transfer that it is about.
pub(super) fn transfer_of<'a>(trace: &'a Trace, traced: &TracedReversal) -> Option<&'a TracedTransfer> {
    trace.transfers.iter().find(|transfer| transfer.id == traced.reversal.transfer_id)
}
