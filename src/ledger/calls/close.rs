//! Closing: an operator records that what a reversal owes was settled elsewhere.

use uuid::Uuid;

use super::reversal;
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::Change;
use crate::ledger::history::Note;
use crate::ledger::status::{CallKind, CallState, ReversalEvent, ReversalStatus};
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

/// An operator closes one reversal.
#[derive(Debug)]
pub(in crate::ledger) struct Close {
    id: Uuid,
    note: Note,
    traceparent: Option<String>,
}

impl Ledger {
    /// Closes a reversal that failed permanently: its debt was settled elsewhere. It is not replayed any more, is no failure
    /// in any figure, and later claims on its transfer, which it held up, go on. `id` is Clawback's or Stripe's. Returns
    /// Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it has not failed permanently; [`LedgerError::Database`].
    pub async fn close_reversal(&self, id: &str, note: &Note) -> Result<Uuid, LedgerError> {
        let id = self.call_id(CallKind::Reverse, id).await?;
        self.store.apply(&Close::of(id, note)).await?;
        Ok(id)
    }
}

impl Close {
    pub(in crate::ledger) fn of(id: Uuid, note: &Note) -> Self {
        Self { id, note: note.clone(), traceparent: trace_context::current() }
    }
}

impl Change for Close {
    type Answer = ();

    fn reads(&self, reads: &mut Reads) {
        reads.calls.insert(self.id);
    }

    fn apply(&self, book: &mut Book) -> Result<(), LedgerError> {
        let row = book.reversal(self.id)?;
        if row.status != ReversalStatus::PermanentlyFailed {
            let problem =
                format!("reversal {} is {}; only a permanently_failed one can be closed", self.id, row.status);
            return Err(LedgerError::Conflict(problem));
        }
        let call = book.call(self.id)?.moved_to(CallState::CalledOff, book.now);
        book.put_call(call);
        let note = self.note.because(format!("settled elsewhere: {}", self.note.reason));
        book.move_reversal(self.id, ReversalEvent::Closed, &note, |_| {})?;
        reversal::unblock(book, row.transfer_id, &note, self.traceparent.as_deref())
    }
}
