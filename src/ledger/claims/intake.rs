//! Takes in what the providers report by webhook: the event, the claim, its reversals and their jobs in one transaction.

use uuid::Uuid;

use super::discovery::look_for_payment;
use super::matching::{self, payment_of};
use super::withdrawn::{self, Withdrawn};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::Change;
use crate::ledger::events::{ClaimKind, EventContent, Receipt, RefundEvent, RefundProgress, Source, WebhookEvent};
use crate::ledger::history::Note;
use crate::ledger::lookups::{Question, Subject, ask};
use crate::ledger::schema::{claim, webhook_event};
use crate::ledger::status::ClaimStatus;
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

/// Who the history names for what a webhook brought about.
const ACTOR: &str = "ingress";
const BY_THE_PROVIDER: &str = "the provider reversed the transfer together with the refund";

/// A verified webhook on its way into the ledger.
#[derive(Debug)]
pub(in crate::ledger) struct Received {
    event: WebhookEvent,
    traceparent: Option<String>,
}

/// What became of one refund of an event.
enum Taken {
    Matched { reversals: Vec<Uuid> },
    Failed(Withdrawn),
    Unmatched,
    Known,
    NoEffect(String),
}

impl Ledger {
    /// Takes in a verified webhook. When this returns, what it said is committed.
    ///
    /// An event that was seen before changes nothing, nor does a second event about a refund that is matched already.
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
        if book.knows_event(*source, event_id) {
            return Ok(Receipt::Duplicate);
        }
        // Before those of all that follows from it: the trace is in the order of the ids.
        let id = Uuid::now_v7();
        let receipt = self.take_in(book, Some(id))?;
        let (outcome, detail) = receipt.in_inbox();
        book.add_event(webhook_event::Model {
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
        if let EventContent::LookUp { subject, reference } = &self.event.content {
            reads.lookups.insert((*subject, reference.clone()));
            if *subject == Subject::Transfer {
                reads.stripe_transfers.insert(reference.clone());
            }
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
        })
    }

    fn look_up(&self, book: &mut Book, subject: Subject, reference: &str, event: Option<Uuid>) -> Receipt {
        if subject == Subject::Transfer {
            let is_it =
                |row: &crate::ledger::schema::transfer::Model| row.stripe_transfer_id.as_deref() == Some(reference);
            if !book.discovery {
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
            EventContent::LookUp { .. } | EventContent::Irrelevant { .. } => &[],
        }
    }

    fn take(&self, book: &mut Book, event: &RefundEvent, inbox: Option<Uuid>) -> Result<Taken, LedgerError> {
        if let RefundProgress::Other(status) = &event.progress {
            return Ok(Taken::NoEffect(format!("the refund is {status}; only succeeded refunds count")));
        }
        let Some(known) = find(book, self.event.source, &event.refund_ref) else {
            let claim = unrecorded(book, self.event.source, event);
            add(book, &claim, ACTOR);
            return match (&event.progress, event.transfer_already_reversed) {
                // Events come in any order: an older one that says "succeeded" may follow.
                (RefundProgress::Failed(status), _) => {
                    Ok(Taken::NoEffect(format!("the refund is {status}; nothing will be taken back for it")))
                }
                (_, true) => Ok(Taken::NoEffect(BY_THE_PROVIDER.to_owned())),
                _ => Ok(self.matched(book, &claim, true, inbox)?.unwrap_or(Taken::Unmatched)),
            };
        };
        match (&event.progress, known.status) {
            (RefundProgress::Failed(_), ClaimStatus::Failed) => Ok(Taken::Known),
            (RefundProgress::Failed(word), _) => Ok(Taken::Failed(withdrawn::fail(book, known, word, ACTOR)?)),
            (_, ClaimStatus::Failed) => {
                Ok(Taken::NoEffect("the refund has failed since; nothing is taken back for it".to_owned()))
            }
            (_, ClaimStatus::NothingToReverse) => Ok(Taken::Known),
            _ if event.transfer_already_reversed => {
                // The first report did not say so.
                let refund_ref = known.reference.clone();
                let Withdrawn { called_off, attention } = withdrawn::reversed_by_provider(book, known, ACTOR)?;
                tracing::warn!(refund_ref, called_off, attention, "{BY_THE_PROVIDER}");
                let reason = format!("{BY_THE_PROVIDER}; {called_off} reversals were called off");
                Ok(Taken::NoEffect([Some(reason), attention].into_iter().flatten().collect::<Vec<_>>().join(". ")))
            }
            (_, ClaimStatus::Unmatched) => {
                let claim = with_names(book, known, event);
                Ok(self.matched(book, &claim, false, inbox)?.unwrap_or(Taken::Known))
            }
            _ => Ok(Taken::Known),
        }
    }

    /// `None` while no payment of the claim's is registered: it is looked for.
    fn matched(
        &self,
        book: &mut Book,
        claim: &claim::Model,
        is_new: bool,
        inbox: Option<Uuid>,
    ) -> Result<Option<Taken>, LedgerError> {
        let Some(payment) = payment_of(book, claim) else {
            look_for_payment(book, claim, is_new, inbox, self.traceparent.as_deref());
            return Ok(None);
        };
        let reversals = matching::match_or_conflict(book, &payment, claim, ACTOR, self.traceparent.as_deref())?;
        Ok(Some(Taken::Matched { reversals }))
    }
}

/// Errors unless all names of the payment are locked, those that only the claim's row has included.
pub(super) fn refuse_unless_locked(book: &Book, source: Source, event: &RefundEvent) -> Result<(), LedgerError> {
    let known = find(book, source, &event.refund_ref);
    let known_names = known.iter().flat_map(claim::Model::names);
    if book.holds(event.names().chain(known_names)) { Ok(()) } else { Err(LedgerError::Retry) }
}

pub(super) fn find(book: &Book, source: Source, reference: &str) -> Option<claim::Model> {
    let is_it =
        |row: &&claim::Model| (row.kind, row.source, row.reference.as_str()) == (ClaimKind::Refund, source, reference);
    book.claims.all().find(is_it).cloned()
}

/// The claim that `event` reports, if it is not known.
pub(super) fn unrecorded(book: &Book, source: Source, event: &RefundEvent) -> claim::Model {
    let failed = matches!(event.progress, RefundProgress::Failed(_));
    let (status, reason) = if failed {
        (ClaimStatus::Failed, "failed at its provider before it was seen to succeed")
    } else if event.transfer_already_reversed {
        (ClaimStatus::NothingToReverse, "the provider reversed the transfer itself")
    } else {
        (ClaimStatus::Unmatched, "no payment of its reference is registered yet")
    };
    claim::Model {
        id: Uuid::now_v7(),
        kind: ClaimKind::Refund,
        source,
        reference: event.refund_ref.clone(),
        payment_ref: event.payment_ref.clone(),
        charge_ref: event.charge_ref.clone(),
        payment_id: None,
        amount: event.amount,
        currency: event.currency.clone(),
        status,
        status_reason: Some(reason.to_owned()),
        shares: event.shares.as_deref().map(super::report::to_json),
        provider_created_at: event.created,
        failed_at: failed.then_some(book.now),
        attention: (failed && event.transfer_already_reversed)
            .then(|| super::attention::reversed_by_the_provider(&event.refund_ref)),
        lookup_id: None,
        created_at: book.now,
        matched_at: None,
    }
}

/// Records a claim that was not known.
pub(super) fn add(book: &mut Book, claim: &claim::Model, actor: &str) {
    let reason = match claim.status {
        ClaimStatus::Unmatched => "reported",
        _ => claim.status_reason.as_deref().unwrap_or_default(),
    };
    book.add_claim(claim.clone(), &Note::new(actor, reason));
}

/// The claim, which waits for its payment, with the names that `event` adds: the first report may have known the payment
/// intent alone, or the charge alone.
fn with_names(book: &mut Book, claim: claim::Model, event: &RefundEvent) -> claim::Model {
    let known: Vec<&str> = claim.names().collect();
    let reported: Vec<&str> = event.names().collect();
    if !known.iter().any(|name| reported.contains(name)) {
        tracing::warn!(
            refund_ref = claim.reference,
            ?known,
            ?reported,
            "the refund is reported under another payment; ignored"
        );
    }
    if known == reported || !known.iter().all(|name| reported.contains(name)) {
        return claim;
    }
    let claim = claim::Model { payment_ref: event.payment_ref.clone(), charge_ref: event.charge_ref.clone(), ..claim };
    book.keep_claim(claim.clone());
    claim
}

/// One receipt for all refunds of an event.
fn sum_up(taken: Vec<Taken>) -> Receipt {
    let (mut matched, mut unmatched, mut known, mut no_effect) = (None, false, false, None);
    let mut failed: Option<Withdrawn> = None;
    for taken in taken {
        match taken {
            Taken::Matched { reversals } => matched = Some(matched.unwrap_or(0) + reversals.len()),
            Taken::Failed(more) => {
                tracing::warn!(called_off = more.called_off, attention = more.attention, "a refund has failed");
                failed = Some(match failed {
                    None => more,
                    Some(failed) => failed.and(more),
                });
            }
            Taken::Unmatched => unmatched = true,
            Taken::Known => known = true,
            Taken::NoEffect(reason) => no_effect = Some(reason),
        }
    }
    match (failed, matched, unmatched, known, no_effect) {
        (Some(Withdrawn { called_off, attention }), ..) => Receipt::Failed { called_off, attention },
        (_, Some(reversals), ..) => Receipt::Accepted { reversals },
        (_, _, true, ..) => Receipt::Unmatched,
        (.., true, _) => Receipt::Duplicate,
        (.., Some(reason)) => Receipt::Ignored { reason },
        (.., None) => Receipt::Ignored { reason: "the event carries no refund".to_owned() },
    }
}
