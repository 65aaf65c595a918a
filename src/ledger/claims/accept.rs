//! What operators decide about claims: a held one takes after all, a corrected one is tried again, one that needs nothing more is
//! acknowledged, and a report that was a mistake is withdrawn.

use uuid::Uuid;

use super::matching::{By, bring_together, payment_of, plan};
use super::withdrawn;
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::{Change, rowset};
use crate::ledger::events::Source;
use crate::ledger::history::Note;
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

/// An operator's decision about one claim.
#[derive(Debug)]
pub(in crate::ledger) struct Decision {
    id: Uuid,
    source: Source,
    reference: String,
    what: What,
    note: Note,
    traceparent: Option<String>,
}

/// What an operator decides.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) enum What {
    Accept,
    Acknowledge,
    Withdraw,
}

impl Ledger {
    /// Has a held claim take from its payment's transfers, or a conflicting one that fits by now. `id` is Clawback's or the
    /// provider's. Returns Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it is neither held nor conflicting, does not fit still, or
    /// `id` names several claims; [`LedgerError::Database`].
    pub async fn accept_claim(&self, id: &str, note: Note) -> Result<Uuid, LedgerError> {
        self.decide(id, What::Accept, note).await
    }

    /// Records that nothing more needs to be done about a claim: it counts nowhere as needing attention, until there is news.
    /// `id` is Clawback's or the provider's. Returns Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it needs nothing, or `id` names several claims;
    /// [`LedgerError::Database`].
    pub async fn acknowledge_claim(&self, id: &str, note: Note) -> Result<Uuid, LedgerError> {
        self.decide(id, What::Acknowledge, note).await
    }

    /// Takes back a refund that was reported by mistake: what it asks is called off, and it counts nowhere. Its provider's own
    /// word, or another report, makes it anew. `id` is Clawback's or the provider's. Returns Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when its provider has reported it, Stripe was asked for it, it takes
    /// nothing already, or `id` names several claims; [`LedgerError::Database`].
    pub async fn withdraw_claim(&self, id: &str, note: Note) -> Result<Uuid, LedgerError> {
        self.decide(id, What::Withdraw, note).await
    }

    async fn decide(&self, id: &str, what: What, note: Note) -> Result<Uuid, LedgerError> {
        self.store.apply(&Decision::of(&self.named_claim(id).await?, what, &note)).await
    }

    async fn named_claim(&self, id: &str) -> Result<claim::Model, LedgerError> {
        let db = &self.store.db;
        let mut found = match id.parse::<Uuid>() {
            Ok(id) => rowset::select::<_, claim::Model>(db, "id IN {ids}", &[id], &[]).await?,
            Err(_) => rowset::select::<_, claim::Model>(db, "reference IN {texts}", &[], &[id]).await?,
        };
        match (found.pop(), found.is_empty()) {
            (Some(claim), true) => Ok(claim),
            (None, _) => Err(LedgerError::NotFound { entity: "refund or dispute", id: id.to_owned() }),
            _ => Err(LedgerError::names_several(id)),
        }
    }
}

impl Change for Decision {
    type Answer = Uuid;

    fn reads(&self, reads: &mut Reads) {
        reads.claims.insert((self.source, self.reference.clone()));
    }

    fn apply(&self, book: &mut Book) -> Result<Uuid, LedgerError> {
        let claim = book.claims.get(self.id).cloned().filter(|claim| book.holds(claim.names()));
        // Named, and no longer there or renamed since: read again.
        let claim = claim.ok_or(LedgerError::Retry)?;
        match self.what {
            What::Accept => self.accept(book, claim)?,
            What::Acknowledge => self.acknowledge(book, claim)?,
            What::Withdraw => self.withdraw(book, claim)?,
        }
        Ok(self.id)
    }
}

impl Decision {
    pub(in crate::ledger) fn of(claim: &claim::Model, what: What, note: &Note) -> Self {
        let claim::Model { id, source, reference, .. } = claim.clone();
        Self { id, source, reference, what, note: note.clone(), traceparent: trace_context::current() }
    }

    fn accept(&self, book: &mut Book, claim: claim::Model) -> Result<(), LedgerError> {
        let by = By { actor: &self.note.actor, event: None, traceparent: self.traceparent.as_deref() };
        let why = self.note.because(format!("accepted: {}", self.note.reason));
        match claim.status {
            ClaimStatus::Held => {
                let claim = book.move_claim(claim, ClaimStatus::Unmatched, &why, |row| {
                    row.status_reason = Some("accepted; no payment of its reference is registered yet".to_owned());
                });
                bring_together(book, &claim, by)?;
                Ok(())
            }
            ClaimStatus::Conflicting => {
                let plan = payment_of(book, &claim).and_then(|payment| match payment {
                    Some(payment) => plan(book, &payment, &claim).map(Some),
                    None => Ok(None),
                });
                let plan = plan.map_err(|conflict| {
                    let problem = conflict.problem;
                    LedgerError::Conflict(format!("{} {} still conflicts: {problem}", claim.kind, claim.reference))
                })?;
                if plan.is_none() {
                    return Err(refused(&claim, "register its payment, and it is matched"));
                }
                book.remark(&claim.kind.to_string(), claim.id, claim.status, &why);
                bring_together(book, &claim, by)?;
                Ok(())
            }
            ClaimStatus::Unmatched => Err(refused(&claim, "register its payment, and it is matched")),
            _ => Err(refused(&claim, "only a held or conflicting one can be accepted")),
        }
    }

    fn acknowledge(&self, book: &mut Book, claim: claim::Model) -> Result<(), LedgerError> {
        if claim.acknowledged_at.is_some()
            || !(claim.attention.is_some() || ClaimStatus::WAITING.contains(&claim.status))
        {
            return Err(refused(&claim, "it needs no attention"));
        }
        let about = claim.attention.as_ref().map(|attention| format!(" (it said: {attention})")).unwrap_or_default();
        let why = self.note.because(format!("acknowledged: {}{about}", self.note.reason));
        book.remark(&claim.kind.to_string(), claim.id, claim.status, &why);
        book.keep_claim(claim::Model { acknowledged_at: Some(book.now), ..claim });
        Ok(())
    }
}

impl Decision {
    fn withdraw(&self, book: &mut Book, claim: claim::Model) -> Result<(), LedgerError> {
        if claim.signed_at.is_some() {
            let why = "its provider has reported it itself, which can't be withdrawn. If no seller owes for it, report it with \
                 shares of 0 (POST /v1/refunds) before Stripe is asked, or acknowledge it";
            return Err(refused(&claim, why));
        }
        if claim.status == ClaimStatus::Failed {
            let why = if claim.is_withdrawn() { "it is withdrawn already" } else { "it takes nothing" };
            return Err(refused(&claim, why));
        }
        withdrawn::withdraw(book, claim, &self.note)
    }
}

fn refused(claim: &claim::Model, why: &str) -> LedgerError {
    let acknowledged = if claim.acknowledged_at.is_some() { " and acknowledged" } else { "" };
    LedgerError::Conflict(format!("{} {} is {}{acknowledged}; {why}", claim.kind, claim.reference, claim.status))
}
