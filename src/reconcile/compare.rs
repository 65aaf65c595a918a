//! The comparison of one transfer with Stripe's. Pure. What is on its way, or given up and not at Stripe, is no difference.

use std::collections::HashSet;

use super::difference::{Difference, Kind, Repair};
use crate::ledger::{ReversalStatus, ReversalView, TransferView};
use crate::stripe::{Transfer, TransferReversal};

#[cfg(test)]
mod tests;

/// A transfer as Stripe has it.
#[derive(Clone, Debug)]
pub struct AtStripe {
    /// The transfer.
    pub transfer: Transfer,
    /// All its reversals, newest first, read after the transfer.
    pub reversals: Vec<TransferReversal>,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What the two don't agree on.
    pub differences: Vec<Difference>,
    /// Reversals that are done on both sides.
    pub agreed: u64,
    /// Reversals that are pending in the ledger, and not done at Stripe.
    pub on_their_way: u64,
    /// Reversals that the ledger has given up, and that are not at Stripe.
    pub given_up: u64,
}

/// Compares `ours` with `theirs`; none when Stripe knows no such transfer.
///
/// `expected_refunds` are refunds (`re_…`) of which the ledger knows that Stripe itself took the money back for them.
#[must_use]
pub fn compare(ours: &TransferView, theirs: Option<&AtStripe>, expected_refunds: &HashSet<String>) -> Comparison {
    let mut found = Comparison::default();
    let Some(theirs) = theirs else {
        let unknown = Difference::of(ours, Kind::UnknownTransfer, "Stripe knows no transfer of this id");
        found.differences.push(unknown.with_amounts(Some(ours.amount), None));
        return found;
    };
    let comparing = Comparing { ours, theirs };
    found.differences.extend(comparing.transfer());
    if !same_currency(&ours.currency, &theirs.transfer.currency) {
        return found; // No amount on it can be compared.
    }
    for row in comparing.latest() {
        comparing.reversal(row, &mut found);
    }
    found.differences.extend(comparing.orphans());
    found.differences.extend(comparing.foreign(expected_refunds));
    found
}

struct Comparing<'a> {
    ours: &'a TransferView,
    theirs: &'a AtStripe,
}

/// Stripe has `theirs`, which the ledger says was never created.
pub(super) fn uncreated(ours: &TransferView, theirs: &Transfer) -> Difference {
    let detail = format!("{} in the ledger, but Stripe has paid it as {}", ours.status, theirs.id);
    let difference = Difference::of(ours, Kind::UnrecordedTransfer, detail);
    Difference { stripe_transfer_id: theirs.id.clone(), ..difference }
        .with_amounts(Some(ours.amount - ours.withheld), Some(theirs.amount - theirs.amount_reversed))
}

impl<'a> Comparing<'a> {
    /// What differs in the transfer itself, and whether Stripe's list can be relied on.
    fn transfer(&self) -> Vec<Difference> {
        let (ours, theirs) = (self.ours, &self.theirs.transfer);
        let mut found = Vec::new();
        // What was withheld before the transfer was created never got to Stripe.
        let paid = ours.amount - ours.withheld;
        if paid != theirs.amount || !same_currency(&ours.currency, &theirs.currency) {
            let (currency, amount) = (&theirs.currency, theirs.amount);
            let detail = format!("registered with {paid} {}, at Stripe {amount} {currency}", ours.currency);
            let wrong = Difference::of(ours, Kind::WrongAmount, detail);
            found.push(wrong.with_amounts(Some(paid), Some(amount)));
        }
        let reversed = ours.reversals.iter().filter(|row| row.status == ReversalStatus::Reversed);
        let back = (ours.reversed_before + reversed.map(|row| row.amount).sum::<i64>()).min(paid) + ours.withheld;
        if back != ours.amount_reversed {
            let (says, currency) = (ours.amount_reversed, &ours.currency);
            let detail = format!("the ledger has {says} {currency} as reversed in all, but its reversals make {back}");
            found.push(Difference::of(ours, Kind::WrongAmount, detail).with_amounts(Some(says), None));
        }
        if !self.is_complete() {
            let listed: i64 = self.counting().map(|reversal| reversal.amount).sum();
            let detail = format!("Stripe says that {} is reversed, and lists {listed}", theirs.amount_reversed);
            found.push(Difference::of(ours, Kind::Incomplete, detail).with_amounts(None, Some(theirs.amount_reversed)));
        }
        found
    }

    /// Each claim's latest reversal: those before it were called off.
    fn latest(&self) -> impl Iterator<Item = &'a ReversalView> {
        let rows = &self.ours.reversals;
        let is_latest = |(at, row): &(usize, &ReversalView)| !rows[at + 1..].iter().any(|it| it.claim() == row.claim());
        rows.iter().enumerate().filter(is_latest).map(|(_, row)| row)
    }

    fn reversal(&self, row: &ReversalView, found: &mut Comparison) {
        let mine: Vec<_> = self.counting().filter(|reversal| reversal.claim() == Some(row.claim().as_str())).collect();
        let kept = match (row.status, row.externally_reversed) {
            (ReversalStatus::Reversed, true) => {
                self.recorded_as_foreign(row, found);
                None
            }
            (ReversalStatus::Reversed, false) => self.recorded(row, &mine, found),
            (_, _) => self.open(row, &mine, found),
        };
        for extra in mine.iter().filter(|reversal| kept.is_none_or(|kept| kept.id != reversal.id)) {
            let first = kept.map(|kept| kept.id.as_str()).or(row.stripe_reversal_id.as_deref()).unwrap_or_default();
            let detail = format!("{first} has done this reversal already");
            found.differences.push(self.about(row, Kind::Duplicate, Some(extra), detail));
        }
    }

    /// A row that names a reversal of ours as the one that did it. Returns the one at Stripe that counts for it.
    fn recorded(
        &self,
        row: &ReversalView,
        mine: &[&'a TransferReversal],
        found: &mut Comparison,
    ) -> Option<&'a TransferReversal> {
        let named = row.stripe_reversal_id.as_deref().unwrap_or_default();
        let at_stripe = self.theirs.reversals.iter().find(|reversal| reversal.id == named);
        let missing = match at_stripe {
            None if !self.is_complete() => return mine.first().copied(),
            None => match mine.first() {
                Some(other) => format!("Stripe has {} for it instead", other.id),
                None => "not in Stripe's list".to_owned(),
            },
            Some(it) if it.claim().is_some_and(|claim| claim != row.claim()) => {
                "at Stripe it is about another claim".to_owned()
            }
            Some(it) if !it.is_done() => format!("{} at Stripe", it.status.as_deref().unwrap_or_default()),
            Some(it) if it.amount == row.amount && same_currency(&it.currency, &row.currency) => {
                found.agreed += 1;
                return Some(it);
            }
            Some(it) => {
                found.differences.push(self.about(row, Kind::WrongAmount, Some(it), amounts(row, it)));
                return Some(it);
            }
        };
        let difference = self.about(row, Kind::Missing, None, missing);
        found.differences.push(Difference { stripe_reversal_id: row.stripe_reversal_id.clone(), ..difference });
        mine.first().copied()
    }

    /// A row that names somebody else's reversal. Whether that one was large enough is `foreign`'s question.
    fn recorded_as_foreign(&self, row: &ReversalView, found: &mut Comparison) {
        let named = row.stripe_reversal_id.as_deref().unwrap_or_default();
        let is_there = self.counting().any(|reversal| reversal.id == named);
        if is_there || !self.is_complete() {
            found.agreed += u64::from(is_there);
            return;
        }
        let difference = self.about(row, Kind::Missing, None, "somebody else's reversal is not in Stripe's list");
        found.differences.push(Difference { stripe_reversal_id: row.stripe_reversal_id.clone(), ..difference });
    }

    /// A row that does not say reversed. Returns the one at Stripe that counts for it.
    fn open(
        &self,
        row: &ReversalView,
        mine: &[&'a TransferReversal],
        found: &mut Comparison,
    ) -> Option<&'a TransferReversal> {
        let Some(kept) = mine.iter().find(|reversal| reversal.is_done()).or(mine.first()).copied() else {
            match row.status {
                ReversalStatus::Pending => found.on_their_way += 1,
                ReversalStatus::PermanentlyFailed => found.given_up += 1,
                ReversalStatus::Reversed | ReversalStatus::CalledOff | ReversalStatus::Closed => {}
            }
            return None;
        };
        if kept.amount != row.amount || !same_currency(&kept.currency, &row.currency) {
            found.differences.push(self.about(row, Kind::WrongAmount, Some(kept), amounts(row, kept)));
        } else if !kept.is_done() && row.status == ReversalStatus::Pending {
            found.on_their_way += 1;
        } else {
            let at_stripe = kept.status.as_deref().unwrap_or("done");
            let detail = format!("{} in the ledger, {at_stripe} at Stripe", row.status);
            let difference = self.about(row, Kind::Unrecorded, Some(kept), detail);
            // One reversal at Stripe settles one row.
            let claimed = self.ours.reversals.iter().any(|row| row.stripe_reversal_id.as_ref() == Some(&kept.id));
            // Where nothing is owed an operator has to pay the seller back; to record it would settle nothing.
            let owed = matches!(row.status, ReversalStatus::Pending | ReversalStatus::PermanentlyFailed);
            let provable = owed && kept.is_done() && !claimed && kept.transfer == difference.stripe_transfer_id;
            let repair = if provable { Repair::Possible } else { Repair::ByHand };
            found.differences.push(Difference { repair, ..difference });
        }
        Some(kept)
    }

    /// Reversals with an id like ours that no row has.
    fn orphans(&self) -> impl Iterator<Item = Difference> {
        self.counting().filter_map(|reversal| {
            let claim = reversal.claim()?;
            if self.ours.reversals.iter().any(|row| row.claim() == claim) {
                return None;
            }
            let detail = format!("the ledger has no reversal of this transfer for claim {claim}");
            let orphan = Difference::of(self.ours, Kind::Orphan, detail).with_amounts(None, Some(reversal.amount));
            Some(orphan.about(reversal))
        })
    }

    /// What somebody else took back, less what rows of ours count on and what was registered as taken back before. Those that rows name are used up first.
    fn foreign(&self, expected_refunds: &HashSet<String>) -> Vec<Difference> {
        let rows = || self.ours.reversals.iter().filter(|row| row.status == ReversalStatus::Reversed);
        let names = |row: &ReversalView, it: &TransferReversal| row.stripe_reversal_id.as_ref() == Some(&it.id);
        let is_ours = |it: &TransferReversal| rows().any(|row| !row.externally_reversed && names(row, it));
        let is_named = |it: &TransferReversal| {
            let is_adopted = self.ours.adopted_reversals.contains(&it.id);
            is_adopted || rows().any(|row| row.externally_reversed && names(row, it))
        };
        let mut foreign: Vec<_> = self.counting().filter(|it| it.claim().is_none() && !is_ours(it)).collect();
        foreign.sort_by_key(|it| !is_named(it));
        // A row whose reversal is not there at all is reported as missing already.
        let counted_on = |row: &&ReversalView| row.externally_reversed && foreign.iter().any(|it| names(row, it));
        let wanted: i64 = rows().filter(counted_on).map(|row| row.amount).sum::<i64>() + self.ours.reversed_before;
        let mut open = wanted;
        let mut found = Vec::new();
        for it in &foreign {
            let used = it.amount.min(open);
            open -= used;
            let expected = it.source_refund.as_ref().is_some_and(|refund| expected_refunds.contains(refund));
            if used == it.amount || expected {
                continue;
            }
            let by = match &it.source_refund {
                Some(refund) => format!("Stripe took it back for refund {refund}"),
                None => "taken back by somebody else".to_owned(),
            };
            let detail = if used > 0 { format!("{by}; {used} of it is for reversals of ours") } else { by };
            let external = Difference::of(self.ours, Kind::ExternallyReversed, detail)
                .with_amounts((used > 0).then_some(used), Some(it.amount));
            found.push(external.about(it));
        }
        if open > 0 && self.is_complete() {
            let there = wanted - open;
            let detail = format!("reversals of ours count on {wanted} from somebody else, who took back {there}");
            let short = Difference::of(self.ours, Kind::WrongAmount, detail);
            found.push(short.with_amounts(Some(wanted), Some(there)));
        }
        found
    }

    fn about(
        &self,
        row: &ReversalView,
        kind: Kind,
        at_stripe: Option<&TransferReversal>,
        detail: impl Into<String>,
    ) -> Difference {
        let found =
            Difference::of(self.ours, kind, detail).with_amounts(Some(row.amount), at_stripe.map(|it| it.amount));
        let found = at_stripe.map_or(found.clone(), |it| found.about(it));
        Difference { reversal_id: Some(row.id), refund_id: Some(row.refund_id), ..found }
    }

    /// Stripe's reversals that take money, oldest first.
    fn counting(&self) -> impl Iterator<Item = &'a TransferReversal> + use<'a> {
        self.theirs.reversals.iter().rev().filter(|reversal| reversal.counts())
    }

    fn is_complete(&self) -> bool {
        self.theirs.transfer.is_explained_by(&self.theirs.reversals)
    }
}

fn amounts(row: &ReversalView, at_stripe: &TransferReversal) -> String {
    let (theirs, currency) = (at_stripe.amount, &at_stripe.currency);
    format!("{} in the ledger with {} {}, at Stripe with {theirs} {currency}", row.status, row.amount, row.currency)
}

fn same_currency(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}
