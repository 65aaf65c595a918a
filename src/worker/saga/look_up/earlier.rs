//! What Clawback itself had reversed of a payment that its ledger does not know: it was lost since.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Interrupted, Reading, Stop};
use crate::ledger::{Earlier, EventContent, UnknownReversal};
use crate::stripe::TransferReversal;

impl Reading<'_> {
    /// Of the transfers `reversed`, of which so much is taken, those of which others have reversed something; and what Clawback itself
    /// has reversed of those that the ledger does not know, with the claims.
    pub(super) async fn earlier(
        &mut self,
        reversed: Vec<String>,
        taken: &BTreeMap<String, i64>,
    ) -> Result<(Vec<String>, Earlier), Stop> {
        let mut known = Vec::new();
        for name in self.names.clone().iter().filter(|_| !reversed.is_empty()) {
            known.extend(self.caller.ledger.registered_transfers(name).await.map_err(Interrupted::from)?);
        }
        let is_known = |id: &String| known.iter().any(|row| row.stripe_transfer_id.as_ref() == Some(id));
        let (mut others, mut ours): (_, Vec<TransferReversal>) = (Vec::new(), Vec::new());
        for id in reversed.into_iter().filter(|id| !is_known(id)) {
            self.caller.turn(self.task).await?;
            let list = self.caller.stripe.list_reversals(&id).await?;
            self.request_id = list.request_id;
            let listed: Vec<_> = list.items.into_iter().filter(TransferReversal::counts).collect();
            let (sum, amount) = (listed.iter().map(|of| of.amount).sum::<i64>(), taken.get(&id).copied());
            if amount.is_some_and(|amount| sum < amount) {
                let amount = amount.unwrap_or_default();
                return Err(Stop::Short(format!("{sum} of {amount} that were reversed of {id} are listed")));
            }
            match listed.iter().all(|of| of.claim().is_some_and(|claim| reference_at_stripe(claim).is_some())) {
                true => ours.extend(listed),
                false => others.push(id),
            }
        }
        if !others.is_empty() {
            return Ok((others, Earlier::default()));
        }
        ours.sort_by_key(|of| of.created);
        let mut claims: Vec<(String, EventContent)> = Vec::new();
        for name in ours.iter().filter_map(TransferReversal::claim) {
            if let Some(reference) = reference_at_stripe(name).filter(|_| claims.iter().all(|(known, _)| known != name))
            {
                claims.push((name.to_owned(), self.claim(is_refund(reference), reference).await?));
            }
        }
        Ok((others, Earlier { claims, reversals: ours.into_iter().map(unknown).collect() }))
    }

    /// The refund or dispute, as an event with it would report it.
    pub(super) async fn claim(&mut self, is_refund: bool, reference: &str) -> Result<EventContent, Stop> {
        let object: Value = match is_refund {
            // What was captured decides what the refund means.
            true => self.object_with(&["refunds", reference], &[("expand[]", "charge")]).await?,
            false => self.object(&["disputes", reference]).await?,
        };
        (self.caller.parse)(&object).map_err(Stop::Unusable)
    }
}

/// Stripe's id of the refund or dispute that this is the name of, `stripe:re_1`.
fn reference_at_stripe(claim: &str) -> Option<&str> {
    let reference = claim.strip_prefix("stripe:")?;
    let is_dispute = reference.starts_with("du_") || reference.starts_with("dp_");
    (is_dispute || is_refund(reference)).then_some(reference)
}

fn is_refund(reference: &str) -> bool {
    reference.starts_with("re_") || reference.starts_with("pyr_")
}

fn unknown(of: TransferReversal) -> (String, UnknownReversal) {
    let reversal = UnknownReversal {
        is_done: of.is_done(),
        claim: of.claim().map(ToOwned::to_owned),
        stripe_reversal_id: of.id,
        amount: of.amount,
        balance_transaction: of.balance_transaction,
        source_refund: of.source_refund,
    };
    (of.transfer, reversal)
}
