//! Replays: a call that failed permanently is opened again. The one function behind the API, the command line and a message
//! that was moved back to its queue.

use uuid::Uuid;

use super::{Call, reversal};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::{Change, rowset};
use crate::ledger::history::Note;
use crate::ledger::input::FieldProblem;
use crate::ledger::schema::{lookup as lookups, reversal as reversals, transfer};
use crate::ledger::status::{CallKind, CallState, ReversalStatus, TransferEvent};
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

/// An operator's replay of one call.
#[derive(Debug)]
pub(in crate::ledger) struct Replay {
    id: Uuid,
    kind: CallKind,
    note: Note,
    /// Take no more than this.
    amount: Option<i64>,
    /// As the worker read it that holds the call's job. `None`: nobody holds one, so a new job is made.
    held: Option<i64>,
    traceparent: Option<String>,
}

impl Ledger {
    /// Has a call tried again that failed permanently, with all retries and a new job. Before it calls Stripe, the worker
    /// looks there whether it has happened after all. `id` is Clawback's or Stripe's id of the reversal, or of the transfer to
    /// create. Returns Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it did not fail permanently or nothing is owed for it any
    /// more; [`LedgerError::Database`].
    pub async fn replay(&self, kind: CallKind, id: &str, note: &Note) -> Result<Uuid, LedgerError> {
        let id = self.call_id(kind, id).await?;
        self.apply_replay(id, kind, note, None, None).await?;
        Ok(id)
    }

    /// [`Self::replay`] of a reversal that takes only `amount` of what is owed, minor units of its currency. The rest counts
    /// as settled elsewhere.
    ///
    /// # Errors
    /// As [`Self::replay`], and [`LedgerError::Invalid`] when the amount is none, or more than what is owed.
    pub async fn replay_part(&self, id: &str, amount: i64, note: &Note) -> Result<Uuid, LedgerError> {
        let id = self.call_id(CallKind::Reverse, id).await?;
        self.apply_replay(id, CallKind::Reverse, note, Some(amount), None).await?;
        Ok(id)
    }

    /// [`Self::replay`] for a worker that holds the call's job: no other is made.
    ///
    /// # Errors
    /// As [`Self::replay`], and [`LedgerError::Stale`] when the call has changed since it was read: of two workers with the
    /// same message one replays it.
    pub async fn replay_held(&self, call: &Call, note: &Note) -> Result<Call, LedgerError> {
        self.apply_replay(call.id, call.kind, note, None, Some(call.version)).await
    }

    async fn apply_replay(
        &self,
        id: Uuid,
        kind: CallKind,
        note: &Note,
        amount: Option<i64>,
        held: Option<i64>,
    ) -> Result<Call, LedgerError> {
        let replay = Replay { id, kind, note: note.clone(), amount, held, traceparent: trace_context::current() };
        let replayed = self.store.apply(&replay).await?;
        metrics::counter!("clawback_replays_total", "kind" => kind.to_string()).increment(1);
        Ok(replayed)
    }

    /// Clawback's id of what has this id, Clawback's or Stripe's.
    pub(in crate::ledger) async fn call_id(&self, kind: CallKind, id: &str) -> Result<Uuid, LedgerError> {
        if let Ok(id) = id.parse() {
            return Ok(id);
        }
        let db = &self.store.db;
        let found = match kind {
            CallKind::Create => {
                let found =
                    rowset::select::<_, transfer::Model>(db, "stripe_transfer_id IN {texts}", &[], &[id]).await?;
                found.first().map(|row| row.id)
            }
            CallKind::Reverse => {
                let accepted = "SELECT id FROM calls WHERE accepted_id IN {texts}";
                let accepted = rowset::within(db.get_database_backend(), accepted);
                let condition = format!("stripe_reversal_id IN {{texts}} OR id {accepted}");
                let found = rowset::select::<_, reversals::Model>(db, &condition, &[], &[id]).await?;
                found.first().map(|row| row.id)
            }
            CallKind::LookUp => {
                let found = rowset::select::<_, lookups::Model>(db, "reference IN {texts}", &[], &[id]).await?;
                found.first().map(|row| row.id)
            }
            // Known by Clawback's id alone.
            CallKind::Notify => None,
        };
        found.ok_or_else(|| LedgerError::NotFound { entity: kind.entity(), id: id.to_owned() })
    }
}

impl Change for Replay {
    type Answer = Call;

    fn reads(&self, reads: &mut Reads) {
        match self.kind {
            CallKind::Reverse | CallKind::Create => reads.calls.insert(self.id),
            CallKind::LookUp => reads.lookup_ids.insert(self.id),
            CallKind::Notify => reads.notifications.insert(self.id),
        };
    }

    fn apply(&self, book: &mut Book) -> Result<Call, LedgerError> {
        if let Some(version) = self.held
            && book.call(self.id)?.version != version
        {
            let expected = format!("at version {version}");
            return Err(LedgerError::Stale { entity: "call", id: self.id, expected });
        }
        match self.kind {
            CallKind::Reverse => refuse_reversal(book, self.id)?,
            CallKind::Create => refuse_creation(book, self.id)?,
            CallKind::LookUp | CallKind::Notify => refuse_unless_failed(book, self.kind, self.id)?,
        }
        let mut call = book.call(self.id)?.replayed(book.now, book.graces.of(self.kind));
        match self.kind {
            CallKind::Reverse => {
                let row = book.reversal(self.id)?;
                let (rest, note) = self.rest(&row)?;
                if rest > 0 && call.requested_at.is_some() {
                    // Stripe knows the key with another amount: it is left, after two looks.
                    call.key_burnt_at.get_or_insert(book.now);
                }
                reversal::reopen(book, &row, &note, |row| {
                    row.amount -= rest;
                    row.amount_closed += rest;
                })?;
            }
            CallKind::Create => book.move_transfer(self.id, TransferEvent::CreationReplayed, &self.note, |_| {})?,
            CallKind::LookUp | CallKind::Notify => book.move_call(call.clone(), &self.note),
        }
        if self.held.is_none() {
            book.enqueue(&call, self.traceparent.as_deref());
        }
        book.put_call(call.clone());
        Ok(call)
    }
}

impl Replay {
    /// Of all that is owed, with a new job.
    pub(in crate::ledger) fn of(id: Uuid, kind: CallKind, note: &Note) -> Self {
        Self { id, kind, note: note.clone(), amount: None, held: None, traceparent: trace_context::current() }
    }

    /// How much of the debt is not taken, and what the history says of that.
    fn rest(&self, row: &reversals::Model) -> Result<(i64, Note), LedgerError> {
        let amount = self.amount.unwrap_or(row.amount);
        if !(1..=row.amount).contains(&amount) {
            let problem = format!("must be from 1 to {}, what the reversal owes (got {amount})", row.amount);
            return Err(LedgerError::Invalid(vec![FieldProblem::new("amount", problem)]));
        }
        let rest = row.amount - amount;
        let reason = &self.note.reason;
        let said =
            format!("{amount} of {} {} are taken, {rest} were settled elsewhere: {reason}", row.amount, row.currency);
        Ok((rest, if rest > 0 { self.note.because(said) } else { self.note.clone() }))
    }
}

/// Errors unless the call, whose state is the status of what it is for, failed permanently.
fn refuse_unless_failed(book: &Book, kind: CallKind, id: Uuid) -> Result<(), LedgerError> {
    let state = book.call(id)?.state;
    if state == CallState::Failed {
        return Ok(());
    }
    Err(LedgerError::Conflict(format!("{} {id} is {state}; only a failed one can be replayed", kind.entity())))
}

/// Errors unless the reversal failed permanently and is still owed.
fn refuse_reversal(book: &Book, id: Uuid) -> Result<(), LedgerError> {
    let row = book.reversal(id)?;
    let is_over = matches!(row.status, ReversalStatus::PermanentlyFailed | ReversalStatus::CalledOff);
    if let Some(claim) = book.takes_nothing(row.claim_id).filter(|_| is_over) {
        let why = claim.status_reason.as_deref().unwrap_or("its claim takes nothing");
        return Err(LedgerError::Conflict(format!(
            "reversal {id} is not replayed: nothing is owed for it any more ({} {}: {why}). `clawback reconcile` tells if Stripe \
             has done it all the same",
            claim.kind, claim.reference
        )));
    }
    if row.status != ReversalStatus::PermanentlyFailed {
        let problem = format!("reversal {id} is {}; only a permanently_failed one can be replayed", row.status);
        return Err(LedgerError::Conflict(problem));
    }
    Ok(())
}

/// Errors unless creating the transfer failed permanently.
fn refuse_creation(book: &Book, id: Uuid) -> Result<(), LedgerError> {
    let row = book.transfer(id)?;
    let problem = if let Some(at_stripe) = &row.stripe_transfer_id {
        format!("exists at Stripe as {at_stripe}; replay its reversals instead")
    } else if !row.created_by_us {
        // To create it would be to pay the seller a second time.
        "was not registered to be created by Clawback, and has lost its Stripe id".to_owned()
    } else if book.call(id)?.state != CallState::Failed {
        format!("is {}; only a permanently_failed one can be retried", row.status)
    } else {
        return Ok(());
    };
    Err(LedgerError::Conflict(format!("transfer {id} {problem}")))
}
