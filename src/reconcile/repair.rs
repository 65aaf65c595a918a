//! The one repair: Stripe has done a reversal of ours, and the ledger does not say so. Recorded as the worker would record it.

use super::difference::{Difference, Kind, Repair};
use crate::ledger::{CallState, Ledger, LedgerError, Note, TryOutcome};

/// Who the history names.
const ACTOR: &str = "reconcile";
/// How often a row that somebody else is changing is read again.
const ATTEMPTS: usize = 3;

/// Repairs `difference` if that is possible, and returns what became of it.
pub(super) async fn repair(ledger: &Ledger, difference: Difference) -> Result<Difference, LedgerError> {
    let (Kind::Unrecorded, Repair::Possible) = (difference.kind, difference.repair) else { return Ok(difference) };
    let mut outcome = record(ledger, &difference).await;
    for _ in 1..ATTEMPTS {
        let Err(LedgerError::Stale { .. }) = outcome else { break };
        outcome = record(ledger, &difference).await;
    }
    match outcome {
        Ok(()) => Ok(Difference { repair: Repair::Done, ..difference }),
        Err(error @ LedgerError::Database(_)) => Err(error),
        Err(refusal) => {
            let detail = format!("{}; not recorded: {refusal}", difference.detail);
            Ok(Difference { repair: Repair::Refused, detail, ..difference })
        }
    }
}

/// Moves the row to `reversed` from wherever it stands now.
async fn record(ledger: &Ledger, difference: &Difference) -> Result<(), LedgerError> {
    let (Some(reversal_id), Some(stripe_reversal_id)) = (difference.reversal_id, &difference.stripe_reversal_id) else {
        return Ok(());
    };
    let Some(task) = ledger.task(reversal_id).await? else { return Ok(()) };
    if task.call.state == CallState::Done {
        return Ok(()); // The worker was faster.
    }
    let note = Note::new(ACTOR, format!("found done at Stripe as {stripe_reversal_id}"));
    let outcome = TryOutcome::Done { stripe_id: stripe_reversal_id.clone(), externally: false };
    ledger.report(&task, outcome, note).await.map(drop)
}
