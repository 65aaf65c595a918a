//! Adopting: records for an operator what Stripe has reversed and the ledger does not know. Called by `clawback reconcile adopt`
//! with the differences that a walk has found. It reads nothing at Stripe and changes nothing there.

use uuid::Uuid;

use super::difference::{Difference, Kind};
use crate::ledger::{Adopted, Ledger, LedgerError, Note, UnknownReversal};

/// A reversal at Stripe that may be adopted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// As the walk has found it.
    pub difference: Difference,
    /// For the ledger.
    pub reversal: UnknownReversal,
}

impl Candidate {
    /// The reversal that the ledger lacks, if that is what differs.
    #[must_use]
    pub fn of(difference: Difference) -> Option<Self> {
        match difference.kind {
            Kind::Unrecorded | Kind::Duplicate | Kind::WrongAmount | Kind::ExternallyReversed | Kind::Orphan => {}
            Kind::Missing | Kind::UnknownTransfer | Kind::UnrecordedTransfer | Kind::Incomplete => return None,
        }
        let at_stripe = difference.at_stripe.as_ref()?;
        // Rows of ours may count on a part of another program's.
        let counted = difference.amount_in_ledger.filter(|_| difference.kind == Kind::ExternallyReversed);
        let reversal = UnknownReversal {
            stripe_reversal_id: at_stripe.id.clone(),
            amount: at_stripe.amount - counted.unwrap_or(0),
            balance_transaction: at_stripe.balance_transaction.clone(),
            is_done: at_stripe.is_done(),
            claim: difference.claim.clone(),
            source_refund: at_stripe.source_refund.clone(),
        };
        Some(Self { difference, reversal })
    }
}

/// Has the ledger adopt `candidates`, one transfer after the other; changes nothing unless `keep`. One answer for each, in their
/// order, which must be that of the transfers. A refusal is in words.
///
/// # Errors
/// [`LedgerError::Database`]: those before were adopted, and it can be run again.
pub async fn adopt(
    ledger: &Ledger,
    candidates: &[Candidate],
    note: &Note,
    keep: bool,
) -> Result<Vec<Result<Adopted, String>>, LedgerError> {
    let transfer = |candidate: &Candidate| -> Uuid { candidate.difference.transfer_id };
    let mut answers = Vec::with_capacity(candidates.len());
    for of_one in candidates.chunk_by(|one, other| transfer(one) == transfer(other)) {
        let Some(first) = of_one.first() else { continue };
        let found = of_one.iter().map(|candidate| candidate.reversal.clone()).collect();
        let answered = ledger.adopt(transfer(first), found, note, keep).await?;
        answers.extend(answered.into_iter().map(|answer| answer.map_err(|error| error.to_string())));
    }
    Ok(answers)
}
