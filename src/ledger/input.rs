//! Validates payments and refunds before the ledger takes them, and names every field that can't be used.

mod payments;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{LedgerError, NamedShare, NewRefund, NewShare, ProviderReversal, RefundEvent, RefundProgress, Source};

pub(super) use payments::excess;
pub use payments::{CorrectedPayment, NewPayment, NewTransfer, NewTransfers};

/// The most transfers that a payment, or a refund, may name. Real payments have far fewer.
pub(crate) const MAX_TRANSFERS: usize = 1_000;
/// Stripe's own limit.
const MAX_REF_BYTES: usize = 255;
/// Longer values are cut in messages.
const SHOWN_CHARS: usize = 60;

/// One field that can't be used. Its `Display` is a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// The field's path (`transfers[0].amount`).
    pub field: String,
    /// What is wrong, as it reads behind the field's name: `must be X (got Y)`, `is required`.
    pub problem: String,
}

impl FieldProblem {
    /// `field` must be something that it is not.
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The `FIELD must be X (got "Y")` of a text.
    pub(crate) fn text(field: impl Into<String>, must: &str, got: &str) -> Self {
        Self::new(field, format!("must be {must} (got {:?})", shown(got)))
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, problem } = self;
        match problem.split(' ').next() {
            Some("must" | "is") => write!(f, "{field} {problem}"),
            Some("unknown") => f.write_str(problem),
            _ => write!(f, "{field}: {problem}"),
        }
    }
}

/// The problems as one text.
pub(crate) fn sentences(problems: &[FieldProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// `text`, cut if it is long.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl NewRefund {
    /// The checked refund as an event, its currency in lower case.
    pub(super) fn checked(self) -> Result<RefundEvent, LedgerError> {
        refuse(self.problems())?;
        let share = |NewShare { transfer_id, amount }| NamedShare { transfer_id, amount: amount.to_string() };
        Ok(RefundEvent {
            refund_ref: self.refund_ref,
            account: self.account.unwrap_or_default(),
            payment_ref: self.payment_ref,
            charge_ref: None,
            amount: self.amount,
            currency: self.currency.to_ascii_lowercase(),
            progress: RefundProgress::Succeeded,
            created: None,
            updated: None,
            charge: None,
            provider_reversal: self.transfer_already_reversed.then(ProviderReversal::default),
            shares: self.transfers.map(|shares| shares.into_iter().map(share).collect()),
        })
    }

    /// Every field that can't be used.
    pub(crate) fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        problems.extend(reference("refund_ref", &self.refund_ref));
        if let Some(account) = &self.account {
            problems.extend(reference("account", account));
            // Stripe's ids are unique already: another account would make a second debt of the same refund.
            if self.source == Source::Stripe {
                problems.push(FieldProblem::new("account", "must be left out where the source is stripe"));
            }
        }
        problems.extend(reference("payment_ref", &self.payment_ref));
        problems.extend(amount("amount", self.amount));
        problems.extend(currency("currency", &self.currency));
        let Some(shares) = &self.transfers else { return problems };
        problems.extend(count(shares.len(), ", or be left out to split the refund by ratio"));
        for (index, share) in shares.iter().enumerate().take(MAX_TRANSFERS) {
            problems.extend(reference(&format!("transfers[{index}].transfer_id"), &share.transfer_id));
            if share.amount < 0 {
                let must = format!("must be an integer in minor units, at least 0 (got {})", share.amount);
                problems.push(FieldProblem::new(format!("transfers[{index}].amount"), must));
            }
        }
        problems
    }
}

fn refuse(problems: Vec<FieldProblem>) -> Result<(), LedgerError> {
    if problems.is_empty() { Ok(()) } else { Err(LedgerError::Invalid(problems)) }
}

fn reference(field: &str, value: &str) -> Option<FieldProblem> {
    let good =
        (1..=MAX_REF_BYTES).contains(&value.len()) && !value.contains(|c: char| c.is_control() || c.is_whitespace());
    (!good).then(|| FieldProblem::text(field, &format!("1 to {MAX_REF_BYTES} bytes without spaces"), value))
}

fn amount(field: &str, value: i64) -> Option<FieldProblem> {
    let must = || format!("must be a positive integer in minor units (got {value})");
    (value <= 0).then(|| FieldProblem::new(field, must()))
}

fn currency(field: &str, value: &str) -> Option<FieldProblem> {
    let good = value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_alphabetic());
    (!good).then(|| FieldProblem::text(field, "a three-letter ISO 4217 code", value))
}

fn count(entries: usize, or: &str) -> Option<FieldProblem> {
    let must = || format!("must have 1 to {MAX_TRANSFERS} entries{or} (got {entries})");
    (entries == 0 || entries > MAX_TRANSFERS).then(|| FieldProblem::new("transfers", must()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    #[test]
    fn a_refund_may_leave_out_its_shares_but_not_name_none() {
        let refund = |transfers| NewRefund {
            source: crate::ledger::Source::Stripe,
            account: None,
            refund_ref: "re_1".into(),
            payment_ref: "pi_1".into(),
            amount: 1,
            currency: "eur".into(),
            transfers,
            transfer_already_reversed: false,
        };
        assert_eq!(refund(None).problems(), []);
        let none = refund(Some(Vec::new())).problems();
        assert_eq!(none.len(), 1);
        assert!(none[0].problem.ends_with("or be left out to split the refund by ratio (got 0)"), "{none:?}");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert!(reference("payment_ref", &"ä".repeat(1_000)).unwrap().problem.chars().count() < 130);
    }
}
