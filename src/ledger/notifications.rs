//! Notifications: what another system is told, committed with the change that it tells of. Each has a call of the same id, and
//! takes the way of every call.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::book::{Book, Reads};
use super::claims::attention_of;
use super::db::Change;
use super::schema::{claim, notification, reversal};
use super::status::{CallKind, ClaimStatus, ReversalStatus};
use super::{ClaimKind, Ledger, LedgerError};

/// Tells of what has changed in `book`.
pub(super) fn announce(book: &mut Book) {
    let reversals = book.reversals.moved().filter_map(|(old, new)| {
        let topic = match new.status {
            ReversalStatus::Reversed => "reversal.reversed",
            ReversalStatus::PermanentlyFailed => "reversal.failed",
            ReversalStatus::Pending | ReversalStatus::CalledOff | ReversalStatus::Closed => return None,
        };
        // A debt may begin as failed, or as reversed.
        old.is_none_or(|old| old.status != new.status).then(|| (topic.to_owned(), of_reversal(book, new)))
    });
    let short = book.calls.moved().filter_map(|(old, new)| {
        let is_first = new.kind == CallKind::Reverse && new.refused_since.is_some() && old?.refused_since.is_none();
        let row = book.reversals.get(new.id).filter(|row| is_first && row.status == ReversalStatus::Pending)?;
        Some(("reversal.waiting_for_balance".to_owned(), of_reversal(book, row)))
    });
    let attention = book.claims.moved().filter_map(|(old, new)| {
        let needs = |row| attention_of(row, book.now);
        let is_new = needs(new).is_some() && old.is_none_or(|old| needs(old) != needs(new));
        is_new.then(|| (format!("{}.needs_attention", new.kind), of_claim(new, book.now)))
    });
    let taken = book.claims.moved().filter_map(|(old, new)| {
        let is_new = new.status == ClaimStatus::Matched && old.is_none_or(|old| old.status != new.status);
        (new.kind == ClaimKind::Dispute && is_new).then(|| ("dispute.taken".to_owned(), of_claim(new, book.now)))
    });
    for (topic, data) in reversals.chain(short).chain(attention).chain(taken).collect::<Vec<_>>() {
        add(book, topic, data);
    }
}

fn add(book: &mut Book, topic: String, data: Value) {
    let timestamp = book.now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let body = json!({"type": topic, "timestamp": timestamp, "data": data}).to_string();
    book.notify(notification::Model { id: Uuid::now_v7(), topic, body, created_at: book.now });
}

/// `version` grows with each change of the reversal: of two that came in the wrong order the larger one counts.
fn of_reversal(book: &Book, row: &reversal::Model) -> Value {
    let (claim, transfer) = (book.claims.get(row.claim_id), book.transfers.get(row.transfer_id));
    let call = book.calls.get(row.id);
    json!({
        "reversal_id": row.id,
        "version": call.map(|call| call.version),
        "status": row.status,
        "amount": row.amount,
        "currency": transfer.map(|transfer| &transfer.currency),
        "stripe_reversal_id": row.stripe_reversal_id,
        "failure_code": call.and_then(|call| call.failure_code.as_ref()),
        "failure_message": call.and_then(|call| call.failure_message.as_ref()),
        "next_attempt_at": call.and_then(|call| call.next_attempt_at),
        "transfer_id": row.transfer_id,
        "stripe_transfer_id": transfer.and_then(|transfer| transfer.stripe_transfer_id.as_ref()),
        "seller_id": transfer.map(|transfer| &transfer.seller_id),
        "destination": transfer.map(|transfer| &transfer.destination),
        "claim": claim.map(|claim| of_claim(claim, book.now)),
    })
}

fn of_claim(row: &claim::Model, now: DateTime<Utc>) -> Value {
    json!({
        "id": row.id,
        "kind": row.kind,
        "source": row.source,
        "reference": row.reference,
        "payment_ref": row.payment_ref,
        "amount": row.amount,
        "currency": row.currency,
        "status": row.status,
        "reason": attention_of(row, now).or_else(|| row.status_reason.clone()),
    })
}

/// What a process has to tell that no row of the ledger says.
#[derive(Debug)]
struct Announcement {
    topic: &'static str,
    data: Value,
}

impl Ledger {
    /// Tells another system `data` under `topic`, if one is to be told.
    pub async fn tell(&self, topic: &'static str, data: Value) -> Result<(), LedgerError> {
        if !self.store.notifies {
            return Ok(());
        }
        self.store.apply(&Announcement { topic, data }).await
    }
}

impl Change for Announcement {
    type Answer = ();

    fn reads(&self, _: &mut Reads) {}

    fn apply(&self, book: &mut Book) -> Result<(), LedgerError> {
        add(book, self.topic.to_owned(), self.data.clone());
        Ok(())
    }
}
