//! Payments to register, to add to and to correct: their shapes, and what each field must be.

use std::collections::HashSet;

use serde::Deserialize;
use utoipa::ToSchema;

use super::{FieldProblem, MAX_REF_BYTES, MAX_TRANSFERS, amount, count, currency, reference, refuse};
use crate::ledger::LedgerError;

/// A payment to register, with its transfers to sellers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// The provider's id of the payment (`pi_…` or `ch_…`).
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("pi_1"))]
    pub payment_ref: String,
    /// What was captured of the buyer's payment, in minor units.
    #[schema(minimum = 1, examples(10_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
    /// The sellers' transfers.
    #[schema(min_items = 1, max_items = 1_000)]
    pub transfers: Vec<NewTransfer>,
    /// Accept transfers in the payment's currency that add up to more than its amount.
    #[serde(default)]
    pub allow_excess: bool,
}

/// A transfer to one seller, to register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// The marketplace's id of the seller.
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("s1"))]
    pub seller_id: String,
    /// Stripe's id of the transfer (`tr_…`). Required unless `create` is true.
    #[serde(default)]
    #[schema(max_length = 255, pattern = "^tr_[A-Za-z0-9_]+$", examples("tr_1"))]
    pub stripe_transfer_id: Option<String>,
    /// Stripe has no such transfer yet: Clawback CREATES it, and pays the seller.
    #[serde(default)]
    pub create: bool,
    /// The seller's connected account (`acct_…`).
    #[schema(max_length = 255, pattern = "^acct_[A-Za-z0-9_]+$", examples("acct_1"))]
    pub destination: String,
    /// Minor units of the transfer's own currency.
    #[schema(minimum = 1, examples(9_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
    /// What was taken back before this registration, at most `amount`. Clawback never takes it again.
    #[serde(default)]
    #[schema(minimum = 0, examples(0))]
    pub amount_reversed: i64,
    /// Each reversal also refunds the application fee, in proportion. For transfers of destination charges with a fee.
    #[serde(default)]
    pub refund_application_fee: bool,
    /// Found at Stripe under a name that Clawback gave it: the ledger that had it created was lost.
    #[serde(skip)]
    #[schema(ignore)]
    pub made_by_clawback: bool,
}

/// Transfers to add to a registered payment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfers {
    /// Those that are registered already are skipped.
    #[schema(min_items = 1, max_items = 1_000)]
    pub transfers: Vec<NewTransfer>,
    /// As in a registration.
    #[serde(default)]
    pub allow_excess: bool,
}

/// What a payment should have been registered as.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectedPayment {
    /// The reference it is registered under, which stays. May be left out.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("pi_1"))]
    pub payment_ref: Option<String>,
    /// What was captured of the buyer's payment, in minor units.
    #[schema(minimum = 1, examples(10_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
    /// All of the sellers' transfers.
    #[schema(min_items = 1, max_items = 1_000)]
    pub transfers: Vec<NewTransfer>,
    /// As in a registration.
    #[serde(default)]
    pub allow_excess: bool,
}

impl NewPayment {
    /// Checks every field. [`crate::ledger::Ledger::register_payment`] does so first.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] with every field that can't be used.
    pub fn check(&self) -> Result<(), LedgerError> {
        refuse(self.problems())
    }

    /// The checked payment, its currencies in lower case as Stripe writes them.
    pub(in crate::ledger) fn checked(mut self) -> Result<Self, LedgerError> {
        self.check()?;
        self.currency.make_ascii_lowercase();
        self.transfers.iter_mut().for_each(NewTransfer::lower_currency);
        Ok(self)
    }

    /// Every field that can't be used.
    pub(crate) fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        problems.extend(reference("payment_ref", &self.payment_ref));
        problems.extend(of_amount_and_transfers(self.amount, &self.currency, &self.transfers));
        if !self.allow_excess && problems.is_empty() {
            let transfers = self.transfers.iter().map(|transfer| (transfer.amount, transfer.currency.as_str()));
            problems.extend(excess(self.amount, &self.currency, transfers));
        }
        problems
    }
}

impl NewTransfers {
    /// The checked transfers, their currencies in lower case.
    pub(in crate::ledger) fn checked(mut self) -> Result<Self, LedgerError> {
        refuse(self.problems())?;
        self.transfers.iter_mut().for_each(NewTransfer::lower_currency);
        Ok(self)
    }

    /// Every field that can't be used.
    pub(crate) fn problems(&self) -> Vec<FieldProblem> {
        of_transfers(&self.transfers)
    }
}

impl CorrectedPayment {
    /// As the registration of `payment_ref`.
    pub(in crate::ledger) fn of(self, payment_ref: &str) -> Result<NewPayment, LedgerError> {
        if let Some(other) = self.payment_ref.as_deref().filter(|named| *named != payment_ref) {
            let must = format!("{payment_ref:?}, as in the path; a payment keeps its reference");
            return Err(LedgerError::Invalid(vec![FieldProblem::text("payment_ref", &must, other)]));
        }
        let Self { amount, currency, transfers, allow_excess, .. } = self;
        NewPayment { payment_ref: payment_ref.to_owned(), amount, currency, transfers, allow_excess }.checked()
    }

    /// Every field that can't be used.
    pub(crate) fn problems(&self) -> Vec<FieldProblem> {
        of_amount_and_transfers(self.amount, &self.currency, &self.transfers)
    }
}

impl NewTransfer {
    fn lower_currency(&mut self) {
        self.currency.make_ascii_lowercase();
    }

    fn problems(&self, at: impl Fn(&str) -> String) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        problems.extend(reference(&at("seller_id"), &self.seller_id));
        match &self.stripe_transfer_id {
            None if !self.create => problems.push(FieldProblem::new(
                at("stripe_transfer_id"),
                "is required: name Stripe's transfer (tr_…), or say \"create\": true to have Clawback CREATE it and pay the seller",
            )),
            None => {}
            Some(id) => {
                problems.extend(stripe_id(&at("stripe_transfer_id"), "tr_", id));
                if self.create {
                    let problem = format!("must be false or absent beside stripe_transfer_id {id:?}, which exists (got true)");
                    problems.push(FieldProblem::new(at("create"), problem));
                }
            }
        }
        problems.extend(stripe_id(&at("destination"), "acct_", &self.destination));
        problems.extend(amount(&at("amount"), self.amount));
        problems.extend(currency(&at("currency"), &self.currency));
        let most = if self.create { 0 } else { self.amount.max(0) };
        if !(0..=most).contains(&self.amount_reversed) {
            let whose = if self.create { "for a transfer to create" } else { "the transfer's amount" };
            let problem = format!("must be from 0 to {most}, {whose} (got {})", self.amount_reversed);
            problems.push(FieldProblem::new(at("amount_reversed"), problem));
        }
        if self.create && self.refund_application_fee {
            let problem = "must be false for a transfer to create, which has no application fee (got true)";
            problems.push(FieldProblem::new(at("refund_application_fee"), problem));
        }
        problems
    }
}

/// The problem if transfers, each an amount and its currency, are more than the payment.
pub(in crate::ledger) fn excess<'a>(
    payment: i64,
    currency: &str,
    transfers: impl Iterator<Item = (i64, &'a str)>,
) -> Option<FieldProblem> {
    let of_currency = transfers.filter(|(_, other)| other.eq_ignore_ascii_case(currency));
    let sum: i128 = of_currency.map(|(amount, _)| i128::from(amount)).sum();
    let must = || {
        let currency = currency.to_ascii_lowercase();
        format!(
            "must add up to at most the payment's {payment} {currency} (got {sum}); amounts are minor units; \
             \"allow_excess\": true accepts more"
        )
    };
    (sum > i128::from(payment)).then(|| FieldProblem::new("transfers", must()))
}

fn of_amount_and_transfers(payment: i64, code: &str, transfers: &[NewTransfer]) -> Vec<FieldProblem> {
    let mut problems: Vec<FieldProblem> = amount("amount", payment).into_iter().collect();
    problems.extend(currency("currency", code));
    problems.extend(of_transfers(transfers));
    problems
}

fn of_transfers(transfers: &[NewTransfer]) -> Vec<FieldProblem> {
    let mut problems: Vec<FieldProblem> = count(transfers.len(), "").into_iter().collect();
    let mut seen = HashSet::new();
    for (index, transfer) in transfers.iter().enumerate().take(MAX_TRANSFERS) {
        let at = |name: &str| format!("transfers[{index}].{name}");
        problems.extend(transfer.problems(at));
        if let Some(id) = transfer.stripe_transfer_id.as_ref().filter(|id| !seen.insert(*id)) {
            problems.push(FieldProblem::text(at("stripe_transfer_id"), "different in each transfer", id));
        }
    }
    problems
}

/// An id as Stripe makes them. It becomes a part of a URL: nothing that a path could take for more than a name.
fn stripe_id(field: &str, prefix: &str, value: &str) -> Option<FieldProblem> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let name = value.strip_prefix(prefix).filter(|_| value.len() <= MAX_REF_BYTES);
    let good = name.is_some_and(|name| !name.is_empty() && name.bytes().all(is_of_name));
    let must = || format!("a Stripe id: {prefix} and then letters, digits or _, {MAX_REF_BYTES} bytes at most");
    (!good).then(|| FieldProblem::text(field, &must(), value))
}

#[cfg(test)]
mod tests;
