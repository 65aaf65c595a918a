//! An operator accepts a claim that is held: it is matched like any other.

use uuid::Uuid;

use super::matching::{By, bring_together};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::{Change, rowset};
use crate::ledger::history::Note;
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

#[derive(Debug)]
struct Acceptance {
    claim: claim::Model,
    note: Note,
    traceparent: Option<String>,
}

impl Ledger {
    /// Has a held claim take back what it asks. `id` is Clawback's or the provider's. Returns Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it is not held, or several claims have the provider's id;
    /// [`LedgerError::Database`].
    pub async fn accept_claim(&self, id: &str, note: &Note) -> Result<Uuid, LedgerError> {
        let claim = self.claim_to_change(id).await?;
        let acceptance = Acceptance { claim, note: note.clone(), traceparent: trace_context::current() };
        self.store.apply(&acceptance).await
    }

    /// The one claim with this id: Clawback's or the provider's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when there are several; [`LedgerError::Database`].
    async fn claim_to_change(&self, id: &str) -> Result<claim::Model, LedgerError> {
        let ids: Vec<Uuid> = id.parse().into_iter().collect();
        let condition = "id IN {ids} OR reference IN {texts}";
        let mut found = rowset::select::<_, claim::Model>(&self.store.db, condition, &ids, &[id]).await?;
        match (found.pop(), found.is_empty()) {
            (Some(claim), true) => Ok(claim),
            (None, _) => Err(LedgerError::NotFound { entity: "claim", id: id.to_owned() }),
            (Some(_), false) => {
                let problem = format!("{} claims have the id {id}; use Clawback's", found.len() + 1);
                Err(LedgerError::Conflict(problem))
            }
        }
    }
}

impl Change for Acceptance {
    type Answer = Uuid;

    fn reads(&self, reads: &mut Reads) {
        reads.claims.insert((self.claim.source, self.claim.reference.clone()));
        reads.names.extend(self.claim.names().map(ToOwned::to_owned));
    }

    fn apply(&self, book: &mut Book) -> Result<Uuid, LedgerError> {
        let id = self.claim.id;
        let missing = || LedgerError::NotFound { entity: "claim", id: id.to_string() };
        let claim = book.claims.get(id).cloned().ok_or_else(missing)?;
        if !book.holds(claim.names()) {
            return Err(LedgerError::Retry);
        }
        if claim.status != ClaimStatus::Held {
            let problem =
                format!("{} {} is {}; only a held one is accepted", claim.kind, claim.reference, claim.status);
            return Err(LedgerError::Conflict(problem));
        }
        let claim = book.move_claim(claim, ClaimStatus::Unmatched, &self.note, |row| {
            row.status_reason = Some("accepted by an operator".to_owned());
        });
        bring_together(
            book,
            &claim,
            By { actor: &self.note.actor, event: None, traceparent: self.traceparent.as_deref() },
        )?;
        Ok(id)
    }
}
