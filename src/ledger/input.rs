//! Validates payments and refunds before the ledger takes them, and names every field that can't be used.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{LedgerError, NamedShare, NewPayment, NewRefund, NewShare, ProviderReversal, RefundEvent, RefundProgress};

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

impl NewPayment {
    /// Checks every field by itself. [`super::Ledger::register_payment`] does so first.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] with every field that can't be used.
    pub fn check(&self) -> Result<(), LedgerError> {
        refuse(self.problems())
    }

    /// The checked payment, its currencies in lower case as Stripe writes them.
    pub(super) fn checked(mut self) -> Result<Self, LedgerError> {
        self.check()?;
        self.currency.make_ascii_lowercase();
        self.transfers.iter_mut().for_each(|transfer| transfer.currency.make_ascii_lowercase());
        Ok(self)
    }

    /// Every field that can't be used.
    pub(crate) fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        problems.extend(reference("payment_ref", &self.payment_ref));
        problems.extend(amount("amount", self.amount));
        problems.extend(currency("currency", &self.currency));
        problems.extend(count(self.transfers.len(), ""));
        let mut seen = HashSet::new();
        for (index, transfer) in self.transfers.iter().enumerate().take(MAX_TRANSFERS) {
            let at = |name: &str| format!("transfers[{index}].{name}");
            problems.extend(reference(&at("seller_id"), &transfer.seller_id));
            if let Some(id) = &transfer.stripe_transfer_id {
                problems.extend(reference(&at("stripe_transfer_id"), id));
                if !seen.insert(id) {
                    problems.push(FieldProblem::text(at("stripe_transfer_id"), "different in each transfer", id));
                }
            }
            problems.extend(reference(&at("destination"), &transfer.destination));
            problems.extend(amount(&at("amount"), transfer.amount));
            problems.extend(currency(&at("currency"), &transfer.currency));
        }
        problems
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

    use serde_json::json;

    use super::*;

    #[test]
    fn every_bad_field_of_a_payment_is_named_at_once() {
        let transfer = |id: &str, amount: i64| json!({"seller_id": "s 1", "stripe_transfer_id": id, "destination": "acct_1", "amount": amount, "currency": "eur"});
        let payment: NewPayment = serde_json::from_value(json!({
            "payment_ref": "", "amount": 0, "currency": "euro", "transfers": [transfer("tr_1", -1), transfer("tr_1", 1)],
        }))
        .unwrap();
        assert_eq!(
            payment.check().unwrap_err().to_string(),
            "payment_ref must be 1 to 255 bytes without spaces (got \"\"); \
             amount must be a positive integer in minor units (got 0); \
             currency must be a three-letter ISO 4217 code (got \"euro\"); \
             transfers[0].seller_id must be 1 to 255 bytes without spaces (got \"s 1\"); \
             transfers[0].amount must be a positive integer in minor units (got -1); \
             transfers[1].seller_id must be 1 to 255 bytes without spaces (got \"s 1\"); \
             transfers[1].stripe_transfer_id must be different in each transfer (got \"tr_1\")"
        );
    }

    #[test]
    fn a_checked_payment_has_its_currencies_in_lower_case() {
        let payment: NewPayment = serde_json::from_value(json!({
            "payment_ref": "pi_1", "amount": 1, "currency": "EUR",
            "transfers": [{"seller_id": "s1", "destination": "acct_1", "amount": 1, "currency": "uSd"}],
        }))
        .unwrap();
        let checked = payment.checked().unwrap();
        assert_eq!((checked.currency.as_str(), checked.transfers[0].currency.as_str()), ("eur", "usd"));
    }

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
