//! The rows that a transaction works on, in memory: loaded under their locks, changed by pure functions, written in sets.
//!
//! Whoever changes a transfer, its reversals or their calls holds the transfer's row lock. Whoever matches or registers
//! holds the locks of the payment's names. Locks are taken in one order: operations, names, then transfers by id.

#[cfg(test)]
mod in_memory;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, FromQueryResult, ModelTrait};
use serde::Serialize;
use uuid::Uuid;

use super::LedgerError;
use super::claims::ClaimPolicy;
use super::db::rowset::{self, Writes};
use super::db::{Graces, Store, lock_payments};
use super::events::{Source, payment_names};
use super::history::{self, Note};
use super::lookups::Subject;
use super::notifications;
use super::operations::ItemState;
use super::outbox;
use super::pauses::IS_PAUSED;
use super::schema::{
    call, claim, history as history_table, lookup, notification, operation_item, outbox as outbox_table, payment,
    reversal, transfer, webhook_event,
};
use super::status::{CallKind, CallState, ClaimStatus, ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use super::time::now;

#[cfg(test)]
pub(crate) use in_memory::Rows;

/// Which rows a change looks at.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Events of the inbox.
    pub(super) events: BTreeSet<(Source, String)>,
    /// Claims by their provider's id. Brings what `names` brings for every name that they are known under.
    pub(super) claims: BTreeSet<(Source, String)>,
    /// Payments by their reference, and the claims under these names; with the payments' transfers, reversals and calls.
    pub(super) names: BTreeSet<String>,
    /// Transfers by Stripe's id.
    pub(super) stripe_transfers: BTreeSet<String>,
    /// Calls, each with its transfer and all that belongs to that.
    pub(super) calls: BTreeSet<Uuid>,
    /// Look-ups by what they are about, and by id, each with its call. `names` brings those of payments.
    pub(super) lookups: BTreeSet<(Subject, String)>,
    pub(super) lookup_ids: BTreeSet<Uuid>,
    /// The calls of notifications.
    pub(super) notifications: BTreeSet<Uuid>,
    /// Operations, which nobody aborts before the end of the transaction.
    pub(super) operations: BTreeSet<Uuid>,
}

/// The rows of one table: as they were loaded, and as they are now.
#[derive(Debug)]
pub(super) struct Table<M> {
    loaded: BTreeMap<Uuid, M>,
    rows: BTreeMap<Uuid, M>,
}

impl<M> Default for Table<M> {
    fn default() -> Self {
        Self { loaded: BTreeMap::new(), rows: BTreeMap::new() }
    }
}

impl<M: Clone + PartialEq> Table<M> {
    fn of(rows: Vec<M>, id: fn(&M) -> Uuid) -> Self {
        let rows: BTreeMap<Uuid, M> = rows.into_iter().map(|row| (id(&row), row)).collect();
        Self { loaded: rows.clone(), rows }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&M> {
        self.rows.get(&id)
    }

    /// In the order of their ids, which is that of creation.
    pub(super) fn all(&self) -> impl Iterator<Item = &M> {
        self.rows.values()
    }

    fn added(&self) -> Vec<&M> {
        self.rows.iter().filter(|(id, _)| !self.loaded.contains_key(id)).map(|(_, row)| row).collect()
    }

    fn removed(&self) -> Vec<Uuid> {
        self.loaded.keys().filter(|id| !self.rows.contains_key(id)).copied().collect()
    }

    /// What is new or has changed, with the row as it was loaded.
    pub(super) fn moved(&self) -> impl Iterator<Item = (Option<&M>, &M)> {
        let pairs = self.rows.iter().map(|(id, row)| (self.loaded.get(id), row));
        pairs.filter(|(old, new)| old.is_none_or(|old| old != *new))
    }

    fn changed(&self) -> Vec<(&M, &M)> {
        let pairs = self.rows.iter().filter_map(|(id, row)| Some((self.loaded.get(id)?, row)));
        pairs.filter(|(old, new)| old != new).collect()
    }
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Book {
    /// When this transaction takes place.
    pub(super) now: DateTime<Utc>,
    pub(super) graces: Graces,
    /// `refunds_since` is always set.
    pub(super) policy: ClaimPolicy,
    pub(super) payments: Table<payment::Model>,
    pub(super) transfers: Table<transfer::Model>,
    pub(super) claims: Table<claim::Model>,
    pub(super) reversals: Table<reversal::Model>,
    pub(super) calls: Table<call::Model>,
    pub(super) lookups: Table<lookup::Model>,
    /// The transfers about which Stripe is not called for now.
    paused: BTreeSet<Uuid>,
    events: Table<webhook_event::Model>,
    event_ids: HashMap<(Source, String), Uuid>,
    locked_names: BTreeSet<String>,
    notifies: bool,
    notifications: Vec<notification::Model>,
    history: Vec<history_table::Model>,
    jobs: Vec<outbox_table::Model>,
    running_operations: HashSet<Uuid>,
    /// Rows of operations that are done: as they were read, and as they are now.
    items: Vec<(operation_item::Model, operation_item::Model)>,
    changes: usize,
}

impl Book {
    /// Loads what `reads` names, and takes the locks.
    pub(super) async fn load(txn: &DatabaseTransaction, reads: Reads, store: &Store) -> Result<Self, LedgerError> {
        let running_operations = running(txn, &reads.operations).await?;
        let mut names = reads.names;
        let claim_refs: Vec<&str> = reads.claims.iter().map(|(_, reference)| reference.as_str()).collect();
        lock_payments(txn, &mut names, &claim_refs).await?;

        let (mut payments, mut claims) = (Vec::<payment::Model>::new(), Vec::<claim::Model>::new());
        if !names.is_empty() {
            let of_names = "reference IN {texts} OR payment_ref IN {texts} OR charge_ref IN {texts}";
            let texts: Vec<&str> = names.iter().map(String::as_str).chain(claim_refs).collect();
            (payments, claims) = rowset::select_both(txn, ("payment_ref IN {texts}", of_names), &[], &texts).await?;
        }
        let payment_ids: Vec<Uuid> = payments.iter().map(|row: &payment::Model| row.id).collect();
        let (transfers, paused) = transfers(txn, &payment_ids, &reads.calls, &reads.stripe_transfers).await?;
        // One that is registered is not looked for any more.
        let registered = |name: &str| payments.iter().any(|row| row.payment_ref == name);
        let looked_for = names.iter().map(String::as_str).filter(|name| store.claims.discovery && !registered(name));
        let lookup_refs = reads.lookups.iter().map(|(_, reference)| reference.as_str()).chain(looked_for);
        let (events, lookups) = events_and_lookups(txn, &reads.events, &reads.lookup_ids, lookup_refs).await?;
        let (mut reversals, mut calls) = (Vec::<reversal::Model>::new(), Vec::new());
        let ids = transfers.iter().map(|row| row.id).chain(lookups.iter().map(|row| row.id));
        let ids: Vec<Uuid> = ids.chain(reads.notifications).collect();
        if !ids.is_empty() {
            let of_transfers = "transfer_id IN {ids}";
            let owed =
                rowset::within(txn.get_database_backend(), "SELECT id FROM reversals WHERE transfer_id IN {ids}");
            let calls_of = format!("id IN {{ids}} OR id {owed}");
            (reversals, calls) = rowset::select_both(txn, (of_transfers, &calls_of), &ids, &[]).await?;
        }
        if !reads.calls.is_empty() {
            // Whether something is owed at all depends on the claim.
            let known: HashSet<Uuid> = claims.iter().map(|row| row.id).collect();
            let missing = reversals.iter().map(|row| row.claim_id).filter(|id| !known.contains(id));
            let missing: Vec<Uuid> = missing.collect::<BTreeSet<_>>().into_iter().collect();
            claims.extend(rowset::select::<_, claim::Model>(txn, "id IN {ids}", &missing, &[]).await?);
        }
        Ok(Self {
            payments: Table::of(payments, |row| row.id),
            transfers: Table::of(transfers, |row| row.id),
            claims: Table::of(claims, |row| row.id),
            reversals: Table::of(reversals, |row| row.id),
            calls: Table::of(calls, |row| row.id),
            lookups: Table::of(lookups, |row| row.id),
            paused,
            event_ids: events.iter().map(|row| ((row.source, row.event_id.clone()), row.id)).collect(),
            events: Table::of(events, |row| row.id),
            locked_names: names,
            notifies: store.notifies,
            running_operations,
            ..Self::blank(store.graces, store.claim_policy(txn).await?)
        })
    }

    /// A book without rows, as if these names were locked.
    #[cfg(test)]
    pub(super) fn empty(names: &[&str]) -> Self {
        let grace = std::time::Duration::from_secs(60);
        let locked_names = names.iter().map(|name| (*name).to_owned()).collect();
        Self { locked_names, ..Self::blank(Graces { reverse: grace, create: grace }, ClaimPolicy::default()) }
    }

    fn blank(graces: Graces, policy: ClaimPolicy) -> Self {
        Self {
            now: now(),
            graces,
            policy,
            payments: Table::default(),
            transfers: Table::default(),
            claims: Table::default(),
            reversals: Table::default(),
            calls: Table::default(),
            lookups: Table::default(),
            paused: BTreeSet::new(),
            events: Table::default(),
            event_ids: HashMap::new(),
            locked_names: BTreeSet::new(),
            notifies: false,
            notifications: Vec::new(),
            history: Vec::new(),
            jobs: Vec::new(),
            running_operations: HashSet::new(),
            items: Vec::new(),
            changes: 0,
        }
    }

    /// How many changes were made so far.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Whether no other transaction works on a payment of these names.
    pub(super) fn holds(&self, mut names: impl Iterator<Item = impl AsRef<str>>) -> bool {
        names.all(|name| self.locked_names.contains(name.as_ref()))
    }

    pub(super) fn payment_by_ref(&self, payment_ref: &str) -> Option<&payment::Model> {
        self.payments.all().find(|row| row.payment_ref == payment_ref)
    }

    /// In the order of registration.
    pub(super) fn transfers_of(&self, payment_id: Uuid) -> Vec<transfer::Model> {
        let mut found: Vec<_> = self.transfers.all().filter(|row| row.payment_id == payment_id).cloned().collect();
        found.sort_by_key(|row| row.position);
        found
    }

    /// Oldest first.
    pub(super) fn reversals_of(&self, transfer_id: Uuid) -> Vec<reversal::Model> {
        self.reversals.all().filter(|row| row.transfer_id == transfer_id).cloned().collect()
    }

    /// How much the claim still asks of which transfer.
    pub(super) fn pending_of(&self, claim_id: Uuid) -> Vec<(Uuid, i64)> {
        let is_it = |row: &&reversal::Model| row.claim_id == claim_id && row.status == ReversalStatus::Pending;
        self.reversals.all().filter(is_it).map(|row| (row.transfer_id, row.amount)).collect()
    }

    /// What the claim asks of the transfer, unless it was called off for good. There is at most one: Stripe could not tell two
    /// of them apart.
    pub(super) fn live_reversal_of(&self, claim_id: Uuid, transfer_id: Uuid) -> Option<&reversal::Model> {
        // One whose transfer was never created is owed again once that is.
        let waits = |row: &reversal::Model| self.calls.get(row.id).is_some_and(|it| it.state == CallState::Waiting);
        let is_live = |row: &&reversal::Model| row.status != ReversalStatus::CalledOff || waits(row);
        self.all_reversals_of(claim_id, transfer_id).find(is_live)
    }

    /// What the claim asks of the transfer, and has asked of it before. Oldest first.
    pub(super) fn all_reversals_of(&self, claim_id: Uuid, transfer_id: Uuid) -> impl Iterator<Item = &reversal::Model> {
        self.reversals.all().filter(move |row| (row.claim_id, row.transfer_id) == (claim_id, transfer_id))
    }

    pub(super) fn transfer(&self, id: Uuid) -> Result<transfer::Model, LedgerError> {
        self.transfers.get(id).cloned().ok_or(LedgerError::NotFound { entity: "transfer", id: id.to_string() })
    }

    pub(super) fn reversal(&self, id: Uuid) -> Result<reversal::Model, LedgerError> {
        self.reversals.get(id).cloned().ok_or(LedgerError::NotFound { entity: "reversal", id: id.to_string() })
    }

    pub(super) fn call(&self, id: Uuid) -> Result<call::Model, LedgerError> {
        self.calls.get(id).cloned().ok_or(LedgerError::NotFound { entity: "call", id: id.to_string() })
    }

    /// Whether the transfer is one that Clawback creates and has not created.
    pub(super) fn is_uncreated(&self, row: &transfer::Model) -> bool {
        row.created_by_us && row.stripe_transfer_id.is_none()
    }

    pub(super) fn event(&self, source: Source, event_id: &str) -> Option<&webhook_event::Model> {
        self.event_ids.get(&(source, event_id.to_owned())).and_then(|id| self.events.get(*id))
    }

    pub(super) fn put_event(&mut self, row: webhook_event::Model) {
        self.changes += 1;
        self.event_ids.insert((row.source, row.event_id.clone()), row.id);
        self.events.rows.insert(row.id, row);
    }

    pub(super) fn add_payment(&mut self, row: payment::Model, note: &Note) {
        self.record("payment", row.id, None, "registered", note);
        self.payments.rows.insert(row.id, row);
    }

    /// Changes a payment. Its reference stays.
    pub(super) fn amend_payment(&mut self, row: payment::Model, note: &Note) {
        self.remark("payment", row.id, "registered", note);
        self.payments.rows.insert(row.id, row);
    }

    pub(super) fn add_transfer(&mut self, row: transfer::Model, note: &Note) {
        self.record("transfer", row.id, None, row.status, note);
        self.transfers.rows.insert(row.id, row);
    }

    /// Removes a transfer of which nothing was ever asked. Its history stays.
    pub(super) fn remove_transfer(&mut self, row: &transfer::Model, note: &Note) {
        self.record("transfer", row.id, Some(row.status.to_string()), "removed", note);
        self.transfers.rows.remove(&row.id);
    }

    pub(super) fn add_claim(&mut self, row: claim::Model, note: &Note) {
        self.record(row.kind, row.id, None, row.status, note);
        self.claims.rows.insert(row.id, row);
    }

    pub(super) fn add_reversal(&mut self, row: reversal::Model, note: &Note) {
        self.record("reversal", row.id, None, row.status, note);
        self.reversals.rows.insert(row.id, row);
    }

    /// Moves a transfer by `event`, with `also` in the same row.
    pub(super) fn move_transfer(
        &mut self,
        id: Uuid,
        event: TransferEvent,
        note: &Note,
        also: impl FnOnce(&mut transfer::Model),
    ) -> Result<(), LedgerError> {
        let mut row = self.transfer(id)?;
        let (from, to) = (row.status, row.status.after(event)?);
        (row.status, row.updated_at) = (to, self.now);
        also(&mut row);
        self.record("transfer", id, Some(from.to_string()), to, note);
        self.transfers.rows.insert(id, row);
        Ok(())
    }

    /// Changes a transfer whose status stays.
    pub(super) fn keep_transfer(&mut self, mut row: transfer::Model, also: impl FnOnce(&mut transfer::Model)) {
        row.updated_at = self.now;
        also(&mut row);
        self.changes += 1;
        self.transfers.rows.insert(row.id, row);
    }

    /// Calls the seller of a transfer, and of its reversals, otherwise. When these were done stays.
    pub(super) fn name_seller(&mut self, row: transfer::Model, seller_id: &str, note: &Note) {
        for reversal in self.reversals.rows.values_mut().filter(|reversal| reversal.transfer_id == row.id) {
            seller_id.clone_into(&mut reversal.seller_id);
        }
        self.remark("transfer", row.id, row.status, note);
        self.keep_transfer(row, |row| seller_id.clone_into(&mut row.seller_id));
    }

    /// Moves a reversal by `event`, with `also` in the same row.
    pub(super) fn move_reversal(
        &mut self,
        id: Uuid,
        event: ReversalEvent,
        note: &Note,
        also: impl FnOnce(&mut reversal::Model),
    ) -> Result<(), LedgerError> {
        let mut row = self.reversal(id)?;
        let (from, to) = (row.status, row.status.after(event)?);
        (row.status, row.updated_at) = (to, self.now);
        also(&mut row);
        self.record("reversal", id, Some(from.to_string()), to, note);
        self.reversals.rows.insert(id, row);
        Ok(())
    }

    /// Changes a reversal whose status stays.
    pub(super) fn keep_reversal(&mut self, row: reversal::Model, note: &Note) {
        self.remark("reversal", row.id, row.status, note);
        self.reversals.rows.insert(row.id, reversal::Model { updated_at: self.now, ..row });
    }

    /// Gives a claim the status `to`, with `also` in the same row, and returns it.
    pub(super) fn move_claim(
        &mut self,
        mut row: claim::Model,
        to: ClaimStatus,
        note: &Note,
        also: impl FnOnce(&mut claim::Model),
    ) -> claim::Model {
        let from = row.status;
        (row.status, row.acknowledged_at) = (to, None);
        also(&mut row);
        self.record(row.kind, row.id, Some(from.to_string()), to, note);
        self.claims.rows.insert(row.id, row.clone());
        row
    }

    /// Changes a claim whose status stays.
    pub(super) fn keep_claim(&mut self, mut row: claim::Model) {
        self.changes += 1;
        if self.claims.get(row.id).is_some_and(|before| before.attention != row.attention) {
            row.acknowledged_at = None;
        }
        self.claims.rows.insert(row.id, row);
    }

    pub(super) fn put_call(&mut self, row: call::Model) {
        self.changes += 1;
        self.calls.rows.insert(row.id, row);
    }

    /// Adds a look-up, whose call is put beside it.
    pub(super) fn add_lookup(&mut self, row: lookup::Model, note: &Note) {
        self.record("lookup", row.id, None, CallState::Open, note);
        self.lookups.rows.insert(row.id, row);
    }

    /// Changes what is known of a look-up.
    pub(super) fn keep_lookup(&mut self, row: lookup::Model) {
        self.changes += 1;
        self.lookups.rows.insert(row.id, row);
    }

    /// Records that a call whose state is the status of what it is for has changed since `before`.
    pub(super) fn call_moved(&mut self, before: &call::Model, note: &Note) {
        let to = self.calls.get(before.id).map_or(before.state, |call| call.state);
        self.record(before.kind.entity(), before.id, Some(before.state.to_string()), to, note);
    }

    /// Puts a call whose state is the status of what it is for.
    pub(super) fn move_call(&mut self, call: call::Model, note: &Note) {
        let from = self.calls.get(call.id).map(|known| known.state.to_string());
        self.record(call.kind.entity(), call.id, from, call.state, note);
        self.put_call(call);
    }

    /// Adds a notification, with its call and its job.
    pub(super) fn notify(&mut self, row: notification::Model) {
        let call = call::Model::new(row.id, CallKind::Notify, CallState::Open, self.now, self.graces);
        self.enqueue(&call, None);
        self.put_call(call);
        self.notifications.push(row);
    }

    /// Puts a job for the call into the outbox.
    pub(super) fn enqueue(&mut self, call: &call::Model, traceparent: Option<&str>) {
        self.changes += 1;
        self.jobs.push(outbox::row(call, traceparent, self.now));
    }

    /// Whether the operation, which [`Reads`] named, is running.
    pub(super) fn is_running(&self, operation: Uuid) -> bool {
        self.running_operations.contains(&operation)
    }

    /// Records that an operation's row is done. Another process that did it first makes the transaction fail.
    pub(super) fn finish_item(&mut self, item: operation_item::Model) {
        self.changes += 1;
        let (state, done_at) = (ItemState::Done, Some(self.now));
        self.items.push((item.clone(), operation_item::Model { state, done_at, ..item }));
    }

    /// Appends to the history what does not change a status.
    pub(super) fn remark(&mut self, entity: &str, id: Uuid, status: impl ToString, note: &Note) {
        let status = status.to_string();
        self.record(entity, id, Some(status.clone()), status, note);
    }

    fn record(&mut self, entity: impl ToString, id: Uuid, from: Option<String>, to: impl ToString, note: &Note) {
        self.changes += 1;
        self.history.push(history::row(entity.to_string(), id, from, to.to_string(), note, self.now));
    }

    /// Whether an operator has paused the calls about the transfer of this one.
    pub(super) fn is_paused(&self, call: &call::Model) -> bool {
        let transfer = self.reversals.get(call.id).map_or(call.id, |row| row.transfer_id);
        self.paused.contains(&transfer)
    }

    /// Whether a claim takes nothing after all.
    pub(super) fn takes_nothing(&self, claim_id: Uuid) -> Option<&claim::Model> {
        self.claims.get(claim_id).filter(|row| row.takes_nothing())
    }

    /// Whether the transfer has been asked for it, or still owes it, or it was settled elsewhere.
    pub(super) fn is_asked(&self, row: &reversal::Model) -> bool {
        match row.status {
            ReversalStatus::Pending | ReversalStatus::Reversed | ReversalStatus::Closed => true,
            ReversalStatus::PermanentlyFailed => self.takes_nothing(row.claim_id).is_none(),
            // One that is called off because its transfer was never created is owed again once that is created.
            ReversalStatus::CalledOff => {
                let waits = self.calls.get(row.id).is_some_and(|call| call.state == CallState::Waiting);
                waits && self.takes_nothing(row.claim_id).is_none()
            }
        }
    }

    /// Gives a transfer the amount that is back and, once no reversal is pending any more, the status that follows from all
    /// of them.
    pub(super) fn settle_transfer(&mut self, id: Uuid, amount_reversed: i64, note: &Note) -> Result<(), LedgerError> {
        let row = self.transfer(id)?;
        if self.is_uncreated(&row) {
            return Ok(()); // Its status says how creating it goes on.
        }
        let reversals = self.reversals_of(id);
        let is = |status| move |row: &&reversal::Model| row.status == status;
        let failed = reversals.iter().filter(is(ReversalStatus::PermanentlyFailed)).any(|row| self.is_asked(row));
        let event = if reversals.iter().any(|row| row.status == ReversalStatus::Pending) {
            if amount_reversed != row.amount_reversed {
                self.keep_transfer(row, |row| row.amount_reversed = amount_reversed);
            }
            return Ok(());
        } else if failed {
            TransferEvent::ReversalFailedForGood
        } else if amount_reversed == row.amount {
            TransferEvent::AllReversed
        } else if amount_reversed > 0 {
            TransferEvent::PartReversed
        } else {
            TransferEvent::CalledOff
        };
        // One that has failed leaves that status once no failure is owed any more.
        let may_move = match row.status {
            TransferStatus::ReversalPending => true,
            TransferStatus::PermanentlyFailed => !failed,
            _ => false,
        };
        if !may_move {
            return Ok(());
        }
        self.move_transfer(id, event, note, |row| row.amount_reversed = amount_reversed)
    }

    /// Writes what is new and what has changed, and returns the jobs for the relay. Until `lease` they belong to the one of
    /// this process; without, every relay is told of them.
    pub(super) async fn write(
        mut self,
        txn: &DatabaseTransaction,
        lease: Option<DateTime<Utc>>,
    ) -> Result<Vec<outbox_table::Model>, LedgerError> {
        if self.notifies {
            notifications::announce(&mut self);
        }
        for job in self.jobs.iter_mut().filter(|_| lease.is_some()) {
            (job.claimed_until, job.attempts) = (lease, 1);
        }
        let mut writes = Writes::new(txn);
        write_table(&mut writes, &self.events, &[webhook_event::Column::Outcome])?;
        writes.insert(&self.notifications)?;
        write_table(&mut writes, &self.payments, &[payment::Column::PaymentRef])?;
        write_table(&mut writes, &self.lookups, &[lookup::Column::Subject])?;
        // First: what takes their place may have the same Stripe id.
        writes.delete::<transfer::Entity>(&self.transfers.removed());
        write_table(&mut writes, &self.transfers, &[transfer::Column::Status])?;
        // Reports about several transfers of one claim hold no lock in common: what each says stays.
        write_table(&mut writes, &self.claims, &[claim::Column::Status, claim::Column::Attention])?;
        write_table(&mut writes, &self.reversals, &[reversal::Column::Status])?;
        write_table(&mut writes, &self.calls, &[call::Column::Version])?;
        let items: Vec<_> = self.items.iter().map(|(before, now)| (before, now)).collect();
        writes.update(&[operation_item::Column::State], &items)?;
        writes.insert(&self.history)?;
        writes.insert(&self.jobs)?;
        if !writes.run(txn).await? {
            return Err(LedgerError::Retry);
        }
        if lease.is_none() && !self.jobs.is_empty() {
            outbox::announce(txn).await?;
        }
        Ok(self.jobs)
    }
}

/// Overwrites the changed rows where `guards` are as they were loaded, and then inserts the new ones: a reversal that was called
/// off makes room for another one.
fn write_table<M>(
    writes: &mut Writes,
    table: &Table<M>,
    guards: &[<M::Entity as sea_orm::EntityTrait>::Column],
) -> Result<(), DbErr>
where
    M: ModelTrait + Serialize + PartialEq,
{
    writes.update(guards, &table.changed())?;
    writes.insert(table.added())
}

/// Which of these operations are running. An abort waits until the transaction ends.
async fn running(txn: &DatabaseTransaction, operations: &BTreeSet<Uuid>) -> Result<HashSet<Uuid>, DbErr> {
    if operations.is_empty() {
        return Ok(HashSet::new());
    }
    let backend = txn.get_database_backend();
    let lock = if backend == DbBackend::Postgres { " FOR SHARE" } else { "" };
    let sql = format!("SELECT id FROM operations WHERE id IN {{ids}} AND state = 'running'{lock}");
    let ids: Vec<Uuid> = operations.iter().copied().collect();
    let rows = txn.query_all_raw(rowset::in_sets(backend, &sql, &ids, &[])).await?;
    rows.iter().map(|row| row.try_get("", "id")).collect()
}

/// The events that are known; and the look-ups, which their calls' versions guard, so they are not locked.
async fn events_and_lookups<'a>(
    txn: &DatabaseTransaction,
    events: &'a BTreeSet<(Source, String)>,
    ids: &BTreeSet<Uuid>,
    references: impl Iterator<Item = &'a str>,
) -> Result<(Vec<webhook_event::Model>, Vec<lookup::Model>), DbErr> {
    let texts: Vec<&str> = events.iter().map(|(_, id)| id.as_str()).chain(references).collect();
    if ids.is_empty() && texts.is_empty() {
        return Ok(Default::default());
    }
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let conditions = ("event_id IN {texts}", "id IN {ids} OR reference IN {texts}");
    rowset::select_both::<webhook_event::Model, lookup::Model>(txn, conditions, &ids, &texts).await
}

/// Locked, in the order of their ids; and which of them are paused.
async fn transfers(
    txn: &DatabaseTransaction,
    payments: &[Uuid],
    calls: &BTreeSet<Uuid>,
    stripe_ids: &BTreeSet<String>,
) -> Result<(Vec<transfer::Model>, BTreeSet<Uuid>), DbErr> {
    let mut conditions = Vec::new();
    if !payments.is_empty() {
        conditions.push("payment_id IN {ids}".to_owned());
    }
    if !calls.is_empty() {
        let of_reversals =
            rowset::within(txn.get_database_backend(), "SELECT transfer_id FROM reversals WHERE id IN {ids}");
        conditions.push(format!("id IN {{ids}} OR id {of_reversals}"));
    }
    if !stripe_ids.is_empty() {
        conditions.push("stripe_transfer_id IN {texts}".to_owned());
    }
    if conditions.is_empty() {
        return Ok((Vec::new(), BTreeSet::new()));
    }
    let lock = if txn.get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
    let sql = format!(
        "SELECT *, {IS_PAUSED} AS paused FROM seller_transfers t WHERE {} ORDER BY id{lock}",
        conditions.join(" OR ")
    );
    let ids: Vec<Uuid> = payments.iter().chain(calls).copied().collect();
    let stripe_ids: Vec<&str> = stripe_ids.iter().map(String::as_str).collect();
    let statement = rowset::in_sets(txn.get_database_backend(), &sql, &ids, &stripe_ids);
    let (mut transfers, mut paused) = (Vec::new(), BTreeSet::new());
    for row in txn.query_all_raw(statement).await? {
        let transfer = transfer::Model::from_query_result(&row, "")?;
        if row.try_get("", "paused")? {
            paused.insert(transfer.id);
        }
        transfers.push(transfer);
    }
    Ok((transfers, paused))
}

impl claim::Model {
    /// The names under which its payment may be registered.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        payment_names(&self.payment_ref, self.charge_ref.as_deref())
    }

    /// Whether it asks nothing of any transfer after all.
    pub(super) fn takes_nothing(&self) -> bool {
        self.status.takes_nothing()
    }
}

impl call::Model {
    /// A call that was not made yet.
    pub(super) fn new(id: Uuid, kind: CallKind, state: CallState, now: DateTime<Utc>, graces: Graces) -> Self {
        Self {
            id,
            kind,
            version: 1,
            state,
            attempts: 0,
            next_attempt_at: None,
            generation: 0,
            generation_started_at: now,
            requested_at: None,
            key_burnt_at: None,
            outcome_unknown_since: None,
            absent_since: None,
            refused_since: None,
            accepted_id: None,
            failure_code: None,
            failure_message: None,
            sweep_after: super::time::after(now, graces.of(kind)),
            sweep_count: 0,
            created_at: now,
            updated_at: now,
        }
    }
}
