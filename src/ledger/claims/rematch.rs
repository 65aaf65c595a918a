//! Matches again what could not be matched: a claim whose payment is registered, or that fits now. Called by the sweeper.

use uuid::Uuid;

use super::matching::{By, bring_together, payment_of, plan};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::{Change, is_of_a_change, rowset};
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;
use crate::ledger::{Ledger, LedgerError};

const ACTOR: &str = "sweeper";
/// Few, since each holds its payment's lock.
const AT_ONCE: usize = 64;

#[derive(Debug)]
struct Rematch(claim::Model);

impl Ledger {
    /// Matches again at most `limit` unmatched or conflicting claims newer than `after` whose payment is registered. Returns
    /// how many were brought together with it, and the last one looked at if there may be more.
    pub async fn rematch(&self, after: Option<Uuid>, limit: u64) -> Result<(usize, Option<Uuid>), LedgerError> {
        let newer = if after.is_some() { "AND id > (SELECT id FROM claims WHERE id IN {ids})" } else { "" };
        let condition = format!(
            "(status = 'unmatched' OR (status = 'conflicting' AND acknowledged_at IS NULL)) {newer} AND EXISTS (SELECT 1 FROM payments WHERE payments.payment_ref
                IN (claims.payment_ref, claims.charge_ref)) ORDER BY id LIMIT {limit}"
        );
        let ids: Vec<Uuid> = after.into_iter().collect();
        let found = rowset::select::<_, claim::Model>(&self.store.db, &condition, &ids, &[]).await?;
        let last = found.last().map(|row| row.id).filter(|_| found.len() as u64 == limit);
        let mut matched = 0;
        let changes: Vec<Rematch> = found.into_iter().map(Rematch).collect();
        for changes in changes.chunks(AT_ONCE) {
            for answer in self.store.apply_all(changes, true).await {
                match answer {
                    Ok(done) => matched += usize::from(done),
                    Err(LedgerError::Database(error)) if !is_of_a_change(&error) => return Err(error.into()),
                    // One that can't be matched keeps no later one from it.
                    Err(error) => tracing::warn!(%error, "a claim could not be matched again"),
                }
            }
        }
        Ok((matched, last))
    }
}

impl Change for Rematch {
    type Answer = bool;

    fn reads(&self, reads: &mut Reads) {
        reads.claims.insert((self.0.source, self.0.reference.clone()));
        reads.names.extend(self.0.names().map(ToOwned::to_owned));
    }

    fn apply(&self, book: &mut Book) -> Result<bool, LedgerError> {
        let Some(claim) = book.claims.get(self.0.id).cloned() else { return Ok(false) };
        if !book.holds(claim.names()) {
            return Err(LedgerError::Retry);
        }
        let fits = match payment_of(book, &claim) {
            Ok(Some(payment)) => plan(book, &payment, &claim).is_ok(),
            Ok(None) => false,
            Err(_) => claim.status == ClaimStatus::Unmatched,
        };
        let waits = match claim.status {
            ClaimStatus::Unmatched => true,
            // One that is acknowledged may be settled elsewhere.
            ClaimStatus::Conflicting => fits && claim.acknowledged_at.is_none(),
            _ => false,
        };
        if waits {
            bring_together(book, &claim, By { actor: ACTOR, event: None, traceparent: None })?;
        }
        Ok(waits)
    }
}
