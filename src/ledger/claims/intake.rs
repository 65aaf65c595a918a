//! Takes in what the providers report by webhook: the event, the claim, its reversals and their jobs in one transaction.

use uuid::Uuid;

use super::again;
use super::dispute;
use super::matching::{By, bring_together, waits_for};
use super::record::{self, refuse_unless_locked};
use super::taken::{Taken, sum_up};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::Change;
use crate::ledger::events::{EventContent, Receipt, RefundEvent, RefundProgress, Source, WebhookEvent};
use crate::ledger::lookups::{Question, Subject, ask};
use crate::ledger::schema::{claim, webhook_event};
use crate::ledger::status::ClaimStatus;
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

/// Who the history names for what a webhook brought about.
const ACTOR: &str = "ingress";

/// A verified webhook on its way into the ledger.
#[derive(Debug)]
pub(in crate::ledger) struct Received {
    pub(super) event: WebhookEvent,
    pub(super) traceparent: Option<String>,
}

impl Ledger {
    /// Takes in a verified webhook. When this returns, what it said is committed.
    ///
    /// An event that was seen before changes nothing, nor does a second event about a refund that is matched already. One that
    /// was ignored or held counts when it is sent again under a configuration that takes it.
    ///
    /// # Errors
    /// [`LedgerError::Overloaded`], [`LedgerError::Database`]: the sender should send it again.
    pub async fn receive(&self, event: WebhookEvent) -> Result<Receipt, LedgerError> {
        let (event_id, event_type) = (event.event_id.clone(), event.event_type.clone());
        let receipt = self.intake.submit(Received { event, traceparent: trace_context::current() }).await?;
        tracing::info!(event_id, event_type, outcome = %receipt, "webhook received");
        Ok(receipt)
    }
}

impl Change for Received {
    type Answer = Receipt;

    fn reads(&self, reads: &mut Reads) {
        reads.events.insert((self.event.source, self.event.event_id.clone()));
        self.read(reads);
    }

    fn apply(&self, book: &mut Book) -> Result<Receipt, LedgerError> {
        let WebhookEvent { source, event_id, event_type, object_id, .. } = &self.event;
        let known = book.event(*source, event_id).cloned();
        if known.as_ref().is_some_and(|row| !Receipt::may_change(&row.outcome)) {
            return Ok(Receipt::Duplicate);
        }
        // Before those of all that follows from it: the trace is in the order of the ids.
        let id = known.as_ref().map_or_else(Uuid::now_v7, |row| row.id);
        let receipt = self.take_in(book, Some(id))?;
        let (outcome, detail) = receipt.in_inbox();
        let is_nothing = |row: webhook_event::Model| {
            row.outcome == outcome || matches!(receipt, Receipt::Ignored { .. } | Receipt::Duplicate)
        };
        if known.is_some_and(is_nothing) {
            return Ok(Receipt::Duplicate);
        }
        book.put_event(webhook_event::Model {
            id,
            source: *source,
            event_id: event_id.clone(),
            event_type: event_type.clone(),
            object_id: object_id.clone(),
            outcome: outcome.to_owned(),
            detail,
            received_at: book.now,
        });
        Ok(receipt)
    }
}

impl Received {
    /// What a look-up at Stripe found: taken in as an event with the same objects would be, but for the inbox.
    pub(in crate::ledger) fn found(content: EventContent, traceparent: Option<String>) -> Self {
        let (event_id, event_type) = (String::new(), "look_up".to_owned());
        Self {
            event: WebhookEvent { source: Source::Stripe, event_id, event_type, object_id: None, content },
            traceparent,
        }
    }

    /// Names the rows that [`Self::take_in`] looks at.
    pub(in crate::ledger) fn read(&self, reads: &mut Reads) {
        for refund in self.refunds() {
            reads.claims.insert((self.event.source, refund.refund_ref.clone()));
            reads.names.extend(refund.names().map(ToOwned::to_owned));
        }
        match &self.event.content {
            EventContent::LookUp { subject, reference } => {
                reads.lookups.insert((*subject, reference.clone()));
                if *subject == Subject::Transfer {
                    reads.stripe_transfers.insert(reference.clone());
                }
            }
            EventContent::Dispute(event) => dispute::reads(self.event.source, event, reads),
            EventContent::Refunds(_) | EventContent::Irrelevant { .. } => {}
        }
    }

    /// Takes in what the event says. `inbox` is the id of its row there.
    pub(in crate::ledger) fn take_in(&self, book: &mut Book, inbox: Option<Uuid>) -> Result<Receipt, LedgerError> {
        for refund in self.refunds() {
            refuse_unless_locked(book, self.event.source, refund)?;
        }
        Ok(match &self.event.content {
            EventContent::Irrelevant { reason } => Receipt::Ignored { reason: reason.clone() },
            EventContent::LookUp { subject, reference } => self.look_up(book, *subject, reference, inbox),
            EventContent::Refunds(refunds) => {
                let taken = refunds.iter().map(|refund| self.take(book, refund, inbox)).collect::<Result<_, _>>()?;
                sum_up(taken)
            }
            EventContent::Dispute(event) => {
                let by = By { actor: ACTOR, event: inbox, traceparent: self.traceparent.as_deref() };
                sum_up(vec![dispute::Intake { source: self.event.source, by }.take(book, event)?])
            }
        })
    }

    fn look_up(&self, book: &mut Book, subject: Subject, reference: &str, event: Option<Uuid>) -> Receipt {
        if subject == Subject::Transfer {
            let is_it =
                |row: &crate::ledger::schema::transfer::Model| row.stripe_transfer_id.as_deref() == Some(reference);
            if !book.policy.discovery {
                return Receipt::Ignored { reason: "STRIPE_DISCOVERY is off".to_owned() };
            }
            if book.transfers.all().any(is_it) {
                return Receipt::Ignored { reason: "the transfer is registered".to_owned() };
            }
        }
        ask(book, Question { subject, reference, again: true, event, traceparent: self.traceparent.as_deref() });
        Receipt::LookingUp { subject, reference: reference.to_owned() }
    }

    fn refunds(&self) -> &[RefundEvent] {
        match &self.event.content {
            EventContent::Refunds(refunds) => refunds,
            EventContent::LookUp { .. } | EventContent::Dispute(_) | EventContent::Irrelevant { .. } => &[],
        }
    }

    fn take(&self, book: &mut Book, event: &RefundEvent, inbox: Option<Uuid>) -> Result<Taken, LedgerError> {
        if let RefundProgress::Other(status) = &event.progress {
            return Ok(Taken::NoEffect(format!("the refund is {status}; only succeeded refunds count")));
        }
        let by = By { actor: ACTOR, event: inbox, traceparent: self.traceparent.as_deref() };
        match record::find(book, self.event.source, event) {
            Some(known) if !known.is_withdrawn() => again::reported_again(book, known, event, by),
            withdrawn => {
                let new = record::new_claim(book, self.event.source, event, true);
                first_report(book, record::anew(withdrawn.as_ref(), new), by)
            }
        }
    }
}

fn first_report(book: &mut Book, claim: claim::Model, by: By<'_>) -> Result<Taken, LedgerError> {
    record::add(book, &claim, by.actor);
    let reason = claim.status_reason.clone().unwrap_or_default();
    match claim.status {
        // Events come in any order: an older one that says "succeeded" may follow.
        ClaimStatus::Failed => Ok(Taken::NoEffect(format!("{reason}; nothing will be taken back for it"))),
        ClaimStatus::Held => Ok(Taken::Held(reason)),
        ClaimStatus::NothingToReverse if !takes_part(book, &claim) => Ok(Taken::NoEffect(reason)),
        _ => Ok(bring_together(book, &claim, by)?.into()),
    }
}

/// Whether a claim that its provider has settled may ask something of the payment's other transfers.
fn takes_part(book: &Book, claim: &claim::Model) -> bool {
    claim.names().any(|name| waits_for(book, claim, name) && book.payment_by_ref(name).is_some())
}
