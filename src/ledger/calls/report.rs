//! What workers ask of the ledger: the task, whether it may be called, and that what came of it is recorded. In groups.

use uuid::Uuid;

use super::{Call, Target, Task, TryOutcome, creation, lookup, reversal};
use crate::ledger::book::{Book, Reads};
use crate::ledger::claims;
use crate::ledger::db::Change;
use crate::ledger::history::Note;
use crate::ledger::status::{CallKind, CallState};
use crate::ledger::{Ledger, LedgerError};
use crate::reached::reached;
use crate::trace_context;

/// Who the history names for what follows from a report.
const ACTOR: &str = "worker";

/// One worker's report about one call.
#[derive(Debug)]
pub(in crate::ledger) struct Report {
    id: Uuid,
    kind: CallKind,
    /// What a look-up is about.
    reference: Option<String>,
    /// The payment, where the claim takes nothing any more: what that means for the operator depends on all its transfers.
    withdrawn_from: Option<String>,
    /// As the worker read it.
    version: i64,
    /// What the worker asked for, or looked for. Minor units; `None` for what moves no money.
    amount: Option<i64>,
    what: What,
    traceparent: Option<String>,
}

#[derive(Debug)]
enum What {
    /// The call is about to be made.
    Authorize,
    /// Something came of it.
    Outcome(TryOutcome, Note),
}

impl Ledger {
    /// The call with this id, and what it is for.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn task(&self, id: Uuid) -> Result<Option<Task>, LedgerError> {
        self.loader.load(id).await
    }

    /// Makes sure, directly before a call, that it is still the one to make under its key; before the key's first use it
    /// commits that Stripe is asked. From then on a claim that fails does not call it off at once. The worker may have waited long
    /// since it read the call, and another may have gone on with it: an old key would run a second time.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the call has changed, is paused, its claim takes nothing any more, or its key is burnt or too old;
    /// [`LedgerError::Overloaded`];
    /// [`LedgerError::Database`].
    pub async fn authorize(&self, task: Task) -> Result<Task, LedgerError> {
        let call = self.authorizations.submit(Report::authorize(&task)).await?;
        Ok(Task { call, ..task })
    }

    /// Records what came of a step, and returns the task as it is then.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the call has changed since `task` was read, unless Stripe has done it;
    /// [`LedgerError::Conflict`] when the transfer that Stripe created is registered elsewhere; [`LedgerError::Overloaded`];
    /// [`LedgerError::Database`].
    pub async fn report(&self, task: &Task, outcome: TryOutcome, note: Note) -> Result<Task, LedgerError> {
        let call = self.reports.submit(Report::outcome(task, outcome, note)).await?;
        if call.kind == CallKind::Create && call.state == CallState::Open {
            // Refunds that waited may have made the transfer smaller.
            let found = self.task(call.id).await?;
            return found.ok_or(LedgerError::NotFound { entity: "call", id: call.id.to_string() });
        }
        Ok(Task { call, target: task.target.clone(), read_at: task.read_at, paused: task.paused })
    }
}

impl Change for Report {
    type Answer = Call;

    fn reads(&self, reads: &mut Reads) {
        if let Some(reference) = &self.reference {
            let outcome = match &self.what {
                What::Outcome(outcome, _) => Some(outcome),
                What::Authorize => None,
            };
            return lookup::reads(self.id, reference, outcome, reads);
        }
        if self.kind == CallKind::Notify {
            reads.notifications.insert(self.id);
            return;
        }
        reads.calls.insert(self.id);
        reads.names.extend(self.withdrawn_from.clone());
        if let (CallKind::Create, What::Outcome(TryOutcome::Done { stripe_id, .. }, _)) = (self.kind, &self.what) {
            reads.stripe_transfers.insert(stripe_id.clone());
        }
    }

    fn apply(&self, book: &mut Book) -> Result<Call, LedgerError> {
        let call = book.call(self.id)?;
        let (outcome, note) = match &self.what {
            What::Outcome(TryOutcome::Done { stripe_id, externally }, note) => {
                if self.is_for_another_amount(book, &call)? {
                    return Err(self.stale());
                }
                match call.kind {
                    CallKind::Reverse => reversal::done(book, &call, stripe_id, *externally, note)?,
                    CallKind::Create => creation::done(book, &call, stripe_id, note, self.traceparent.as_deref())?,
                    CallKind::Notify => book.put_call(call.moved_to(CallState::Done, book.now)),
                    // It is done with what it found.
                    CallKind::LookUp => return Err(self.stale()),
                }
                self.review(book)?;
                return book.call(self.id);
            }
            _ if call.version != self.version || call.state != CallState::Open => return Err(self.stale()),
            What::Authorize if !call.key_is_usable(book.now) || !is_owed(book, &call) => return Err(self.stale()),
            // Read again, it says that it is paused.
            What::Authorize if book.is_paused(&call) => return Err(self.stale()),
            What::Authorize => {
                // What a look did not find before this call says nothing of it.
                if call.requested_at.is_none() || call.absent_since.is_some() {
                    let (now, version) = (book.now, call.version + 1);
                    let requested_at = call.requested_at.or(Some(now));
                    book.put_call(Call { requested_at, absent_since: None, version, updated_at: now, ..call });
                }
                return book.call(self.id);
            }
            What::Outcome(TryOutcome::CalledOff(_), _) if is_owed(book, &call) => return Err(self.stale()),
            // Its claim failed since the worker read it, and later ones may have counted on it: they must be in the book.
            What::Outcome(TryOutcome::Failed(_) | TryOutcome::Ended(_), _)
                if self.withdrawn_from.is_none() && !is_owed(book, &call) =>
            {
                return Err(self.stale());
            }
            What::Outcome(outcome, note) => (outcome, note),
        };
        book.put_call(call.after(outcome, book.now, book.graces.of(call.kind)));
        match call.kind {
            CallKind::Reverse => reversal::follow(book, &call, outcome, note)?,
            CallKind::Create => creation::follow(book, &call, outcome, note)?,
            CallKind::LookUp => lookup::follow(book, &call, outcome, note, self.traceparent.as_deref())?,
            CallKind::Notify => book.call_moved(&call, note),
        }
        self.review(book)?;
        book.call(self.id)
    }
}

/// Whether the call's claim still asks for money.
fn is_owed(book: &Book, call: &Call) -> bool {
    let claim = book.reversals.get(call.id).map(|row| row.claim_id);
    claim.is_none_or(|claim| book.takes_nothing(claim).is_none())
}

impl Report {
    pub(in crate::ledger) fn authorize(task: &Task) -> Self {
        Self::of(task, What::Authorize)
    }

    pub(in crate::ledger) fn outcome(task: &Task, outcome: TryOutcome, note: Note) -> Self {
        Self::of(task, What::Outcome(outcome, note))
    }

    fn of(task: &Task, what: What) -> Self {
        let traceparent = trace_context::current();
        let Call { id, kind, version, .. } = task.call;
        let (amount, reference, withdrawn_from) = match &task.target {
            Target::Reversal(target) => {
                let withdrawn_from = (!target.claim_stands).then(|| target.payment_ref.clone());
                (Some(target.amount), None, withdrawn_from)
            }
            Target::Creation(target) => (Some(target.amount), None, None),
            Target::LookUp(target) => (None, Some(target.reference.clone()), None),
            Target::Notification(_) => (None, None, None),
        };
        Self { id, kind, reference, withdrawn_from, version, amount, what, traceparent }
    }

    /// Whether the row asks for another amount than the worker read: what Stripe has done is then looked at anew. A transfer of
    /// which all was withheld meanwhile is told where it is recorded.
    fn is_for_another_amount(&self, book: &Book, call: &Call) -> Result<bool, LedgerError> {
        let asked = match call.kind {
            CallKind::Reverse => book.reversal(self.id)?.amount,
            CallKind::Create if call.state != CallState::CalledOff => {
                let row = book.transfer(self.id)?;
                row.amount - row.withheld
            }
            CallKind::Create | CallKind::LookUp | CallKind::Notify => return Ok(false),
        };
        Ok(self.amount.is_some_and(|amount| amount != asked))
    }

    fn review(&self, book: &mut Book) -> Result<(), LedgerError> {
        match &self.withdrawn_from {
            Some(_) => {
                let is_surely_not_done =
                    matches!(&self.what, What::Outcome(TryOutcome::CalledOff(_) | TryOutcome::Ended(_), _));
                claims::review(book, (self.id, is_surely_not_done), ACTOR, self.traceparent.as_deref())
            }
            None => Ok(()),
        }
    }

    fn stale(&self) -> LedgerError {
        match self.what {
            What::Authorize => reached!("overtaken directly before the call"),
            What::Outcome(..) => reached!("a report came too late"),
        }
        LedgerError::Stale { entity: "call", id: self.id, expected: format!("open at version {}", self.version) }
    }
}
