//! A ledger without a database, for the exhaustive model in tests/model: the real changes on rows in memory. Each is one
//! transaction. Ids and times that decide nothing are made alike, so that equal ledgers are equal values.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Book, Reads, Table};
use crate::ledger::LedgerError;
use crate::ledger::calls::{Replay, Report, ReversalTarget, Target, Task, TryOutcome};
use crate::ledger::claims::Received;
use crate::ledger::db::Change;
use crate::ledger::events::{EventContent, RefundEvent};
use crate::ledger::history::Note;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{CallKind, TransferStatus};

/// The rows of one payment, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    pub(crate) payment: payment::Model,
    pub(crate) transfers: Vec<transfer::Model>,
    pub(crate) claims: Vec<claim::Model>,
    pub(crate) reversals: Vec<reversal::Model>,
    pub(crate) calls: Vec<call::Model>,
    /// Calls whose job is in the outbox.
    pub(crate) outbox: Vec<Uuid>,
}

impl Rows {
    /// A payment of `amount` with a transfer `tr_N` for each of `parts`, made at `at`.
    pub(crate) fn registered(payment_ref: &str, amount: i64, parts: &[i64], at: DateTime<Utc>) -> Self {
        let id = Uuid::from_u128(1);
        let (payment_ref, currency) = (payment_ref.to_owned(), "eur".to_owned());
        let payment = payment::Model { id, payment_ref, amount, currency, found_at_stripe: false, created_at: at };
        let transfer = |(position, amount): (i32, &i64)| transfer::Model {
            id: Uuid::from_u128(2 + u128::from(position.unsigned_abs())),
            payment_id: id,
            position,
            ordinal: position,
            seller_id: format!("seller_{position}"),
            stripe_transfer_id: Some(format!("tr_{position}")),
            destination: format!("acct_{position}"),
            amount: *amount,
            amount_reversed: 0,
            reversed_before: 0,
            adopted: None,
            withheld: 0,
            currency: "eur".to_owned(),
            status: TransferStatus::Completed,
            created_by_us: false,
            refund_application_fee: false,
            created_at: at,
            updated_at: at,
        };
        let transfers = (0..).zip(parts).map(transfer).collect();
        let (claims, reversals, calls, outbox) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { payment, transfers, claims, reversals, calls, outbox }
    }

    /// Takes in what a provider reports, without the inbox: also an event that was seen before. `ids` numbers new rows.
    pub(crate) fn receive(&mut self, event: RefundEvent, ids: &mut u8, at: DateTime<Utc>) -> Result<(), LedgerError> {
        let received = Received::found(EventContent::Refunds(vec![event]), None);
        let mut reads = Reads::default();
        received.read(&mut reads);
        self.commit(reads, ids, at, |book| received.take_in(book, None).map(drop))
    }

    /// As a worker loads it.
    pub(crate) fn task(&self, id: Uuid, at: DateTime<Utc>) -> Option<Task> {
        let call = self.calls.iter().find(|row| row.id == id)?.clone();
        let row = self.reversals.iter().find(|row| row.id == id)?;
        let claim = self.claims.iter().find(|claim| claim.id == row.claim_id)?;
        let transfer = self.transfers.iter().find(|transfer| transfer.id == row.transfer_id)?;
        let target = Target::Reversal(ReversalTarget {
            source: claim.source,
            claim_ref: claim.reference.clone(),
            claim_created_at: claim.provider_created_at,
            payment_ref: self.payment.payment_ref.clone(),
            transfer_id: transfer.id,
            stripe_transfer_id: transfer.stripe_transfer_id.clone(),
            amount: row.amount,
            currency: transfer.currency.clone(),
            refund_application_fee: transfer.refund_application_fee,
            claim_stands: !claim.status.takes_nothing(),
            transfer_amount: transfer.amount - transfer.withheld,
            destination: transfer.destination.clone(),
        });
        Some(Task { call, target, read_at: at, paused: false })
    }

    /// [`Ledger::authorize`](crate::ledger::Ledger::authorize).
    pub(crate) fn authorize(&mut self, task: &Task, ids: &mut u8, at: DateTime<Utc>) -> Result<Task, LedgerError> {
        let call = self.apply(&Report::authorize(task), ids, at)?;
        Ok(Task { call, ..task.clone() })
    }

    /// [`Ledger::report`](crate::ledger::Ledger::report).
    pub(crate) fn report(
        &mut self,
        task: &Task,
        outcome: TryOutcome,
        ids: &mut u8,
        at: DateTime<Utc>,
    ) -> Result<Task, LedgerError> {
        let call = self.apply(&Report::outcome(task, outcome, Note::new("worker", "")), ids, at)?;
        Ok(Task { call, ..task.clone() })
    }

    /// An operator's replay.
    pub(crate) fn replay(&mut self, id: Uuid, ids: &mut u8, at: DateTime<Utc>) -> Result<(), LedgerError> {
        self.apply(&Replay::of(id, CallKind::Reverse, &Note::new("ada", "again")), ids, at).map(drop)
    }

    fn apply<C: Change>(&mut self, change: &C, ids: &mut u8, at: DateTime<Utc>) -> Result<C::Answer, LedgerError> {
        let mut reads = Reads::default();
        change.reads(&mut reads);
        self.commit(reads, ids, at, |book| change.apply(book))
    }

    /// One transaction. An error leaves everything as it was.
    fn commit<T>(
        &mut self,
        reads: Reads,
        ids: &mut u8,
        at: DateTime<Utc>,
        change: impl FnOnce(&mut Book) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut book = self.load(&reads, at);
        let answer = change(&mut book)?;
        self.write(book, ids);
        Ok(answer)
    }

    /// What `Book::load` would read of the database.
    fn load(&self, reads: &Reads, now: DateTime<Utc>) -> Book {
        let by_name = !reads.names.is_empty() || !reads.claims.is_empty();
        let mut book = Book { now, ..Book::empty(&[&self.payment.payment_ref]) };
        let of_call = |row: &reversal::Model| reads.calls.contains(&row.id);
        let parents: Vec<Uuid> = self.reversals.iter().filter(|row| of_call(row)).map(|row| row.transfer_id).collect();
        let transfers = self.transfers.iter().filter(|row| by_name || parents.contains(&row.id));
        book.transfers = Table::of(transfers.cloned().collect(), |row| row.id);
        let has_parent = |row: &&reversal::Model| book.transfers.get(row.transfer_id).is_some();
        let reversals: Vec<_> = self.reversals.iter().filter(has_parent).cloned().collect();
        let is_known = |row: &&claim::Model| by_name || reversals.iter().any(|it| it.claim_id == row.id);
        book.claims = Table::of(self.claims.iter().filter(is_known).cloned().collect(), |row| row.id);
        let calls = self.calls.iter().filter(|row| reversals.iter().any(|it| it.id == row.id));
        book.calls = Table::of(calls.cloned().collect(), |row| row.id);
        book.reversals = Table::of(reversals, |row| row.id);
        if by_name {
            book.payments = Table::of(vec![self.payment.clone()], |row| row.id);
        }
        book
    }

    fn write(&mut self, book: Book, ids: &mut u8) {
        let unix = DateTime::UNIX_EPOCH;
        let mut renamed = std::collections::HashMap::new();
        for row in book.claims.added().iter().map(|row| row.id).chain(book.reversals.added().iter().map(|row| row.id)) {
            *ids += 1;
            renamed.insert(row, Uuid::from_u128(0x100 + u128::from(*ids)));
        }
        let named = |id: Uuid| renamed.get(&id).copied().unwrap_or(id);
        merge(&mut self.transfers, book.transfers, |row| row.id, |row| transfer::Model { updated_at: unix, ..row });
        merge(
            &mut self.claims,
            book.claims,
            |row| row.id,
            |row| claim::Model { id: named(row.id), created_at: unix, status_reason: None, ..row },
        );
        merge(
            &mut self.reversals,
            book.reversals,
            |row| row.id,
            |row| reversal::Model {
                id: named(row.id),
                claim_id: named(row.claim_id),
                created_at: unix,
                updated_at: unix,
                ..row
            },
        );
        merge(
            &mut self.calls,
            book.calls,
            |row| row.id,
            |row| call::Model {
                id: named(row.id),
                created_at: unix,
                updated_at: unix,
                sweep_after: unix,
                sweep_count: 0,
                failure_code: None,
                failure_message: None,
                ..row
            },
        );
        self.outbox.extend(book.jobs.iter().map(|job| named(job.entity_id)));
        self.outbox.sort();
        self.outbox.dedup();
    }
}

fn merge<M: Clone + PartialEq>(rows: &mut Vec<M>, table: Table<M>, id: fn(&M) -> Uuid, alike: impl Fn(M) -> M) {
    for row in table.rows.into_values().map(alike) {
        match rows.iter_mut().find(|known| id(known) == id(&row)) {
            Some(known) => *known = row,
            None => rows.push(row),
        }
    }
    rows.sort_by_key(id);
}
