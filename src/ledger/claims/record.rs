//! Claims as rows: how one is found again, and what a report makes of one that is new.

use uuid::Uuid;

use super::{attention, report};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::events::{ChargeFacts, ClaimKind, RefundEvent, RefundProgress, Source};
use crate::ledger::history::Note;
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;

pub(super) const BY_THE_PROVIDER: &str = "the provider reversed the transfer itself";

/// Errors unless all names of the payment are locked, those that only the claim's row has included.
pub(super) fn refuse_unless_locked(book: &Book, source: Source, event: &RefundEvent) -> Result<(), LedgerError> {
    let known = find(book, source, event);
    let known_names = known.iter().flat_map(claim::Model::names);
    if book.holds(event.names().chain(known_names)) { Ok(()) } else { Err(LedgerError::Retry) }
}

/// The refund that `event` is about. A report over the API may leave out the account: then the payment must be the same.
pub(super) fn find(book: &Book, source: Source, event: &RefundEvent) -> Option<claim::Model> {
    let of_kind = || book.claims.all().filter(|row| row.kind == ClaimKind::Refund);
    let has_reference = |row: &&claim::Model| row.source == source && row.reference == event.refund_ref;
    let exactly = of_kind().filter(has_reference).find(|row| row.account == event.account);
    let perhaps = || {
        let mut others =
            of_kind().filter(has_reference).filter(|row| row.account.is_empty() || event.account.is_empty());
        others.find(|row| row.shares_a_name_with(event))
    };
    exactly.or_else(perhaps).cloned()
}

/// The claim that `event` reports, if it is not known. `signed`: the provider itself says so.
pub(super) fn new_claim(book: &Book, source: Source, event: &RefundEvent, signed: bool) -> claim::Model {
    let failed = matches!(event.progress, RefundProgress::Failed(_));
    let (status, reason, attention) = first_status(book, event);
    let shares = event.shares.as_deref().map(report::to_json);
    claim::Model {
        id: Uuid::now_v7(),
        kind: ClaimKind::Refund,
        source,
        account: event.account.clone(),
        reference: event.refund_ref.clone(),
        payment_ref: event.payment_ref.clone(),
        charge_ref: event.charge_ref.clone(),
        payment_id: None,
        amount: event.amount,
        currency: event.currency.clone(),
        status,
        status_reason: Some(reason),
        signed_at: signed.then_some(book.now),
        signed_shares: shares.clone().filter(|_| signed),
        shares,
        captured: event.charge.map(|charge| charge.captured),
        provider_reversal: event.provider_reversal.as_ref().map(|it| it.id.clone().unwrap_or_default()),
        reversed_transfer: event.provider_reversal.as_ref().and_then(|it| it.transfer_id.clone()),
        provider_created_at: event.created,
        provider_updated_at: event.updated,
        failed_at: failed.then_some(book.now),
        attention,
        acknowledged_at: None,
        stage: None,
        lookup_id: None,
        created_at: book.now,
        matched_at: None,
    }
}

/// The same claim as `withdrawn`, whose report was taken back, as if it were reported for the first time.
pub(super) fn anew(withdrawn: Option<&claim::Model>, claim: claim::Model) -> claim::Model {
    match withdrawn {
        Some(claim::Model { id, created_at, .. }) => claim::Model { id: *id, created_at: *created_at, ..claim },
        None => claim,
    }
}

fn first_status(book: &Book, event: &RefundEvent) -> (ClaimStatus, String, Option<String>) {
    if matches!(event.progress, RefundProgress::Failed(_)) {
        let attention =
            event.provider_reversal.as_ref().map(|_| attention::reversed_by_the_provider(&event.refund_ref));
        return (ClaimStatus::Failed, "failed at its provider before it was seen to succeed".to_owned(), attention);
    }
    if let Some((reason, attention)) = never_captured(event) {
        return (ClaimStatus::NothingToReverse, reason, attention);
    }
    if event.provider_reversal.is_some() {
        return (ClaimStatus::NothingToReverse, BY_THE_PROVIDER.to_owned(), None);
    }
    match book.policy.holds(event.created, &event.progress) {
        Some(reason) => (ClaimStatus::Held, reason, None),
        None => (ClaimStatus::Unmatched, "no payment of its reference is registered yet".to_owned(), None),
    }
}

/// Why a refund gives back nothing that was ever captured, and what an operator must do if that is only likely: Stripe shows
/// the release of what was authorized and not captured as a refund, too.
pub(super) fn never_captured(event: &RefundEvent) -> Option<(String, Option<String>)> {
    let ChargeFacts { amount, captured, refunded } = event.charge?;
    let uncaptured = event.charge?.uncaptured();
    let facts = format!("of {amount} {} authorized {captured} were captured", event.currency);
    if event.amount > captured {
        return Some((format!("{facts}; this refund of {} releases what was not", event.amount), None));
    }
    if event.amount != uncaptured {
        return None;
    }
    let reason = format!("{facts}; this refund of {} releases the rest", event.amount);
    // Beside the release as much was refunded for real; or not even the release is shown, as in some versions.
    let may_be_real = refunded - uncaptured >= event.amount || refunded <= captured;
    let unsure = || {
        format!(
            "{reason}, it seems. If the buyer did get the money back, report the refund with its shares (POST /v1/refunds)"
        )
    };
    Some((reason.clone(), may_be_real.then(unsure)))
}

/// Records a claim that was not known.
pub(super) fn add(book: &mut Book, claim: &claim::Model, actor: &str) {
    let reason = match claim.status {
        ClaimStatus::Unmatched => "reported",
        _ => claim.status_reason.as_deref().unwrap_or_default(),
    };
    book.add_claim(claim.clone(), &Note::new(actor, reason));
}

impl claim::Model {
    /// Whether an operator has taken its report back: its provider says nothing of a failure.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.status == ClaimStatus::Failed && self.failed_at.is_none()
    }

    pub(super) fn shares_a_name_with(&self, event: &RefundEvent) -> bool {
        self.names().any(|name| event.names().any(|reported| reported == name))
    }
}
