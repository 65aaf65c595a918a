//! What is asked of Stripe and what it answers: plain values. Two attempts under one key are equal byte for byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::reference::{id, optional_id};

/// The command to take back part or all of a transfer: everything that `POST /v1/transfers/{id}/reversals` is built
/// from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReverseTransfer {
    /// Stripe's id of the transfer, `tr_…`.
    pub transfer_id: String,
    /// How much to take back, in the currency's minor units. Always sent: without it Stripe takes all that is left.
    pub amount: i64,
    /// ISO 4217, lower case. Not sent (a reversal has its transfer's currency); the answer is checked against it.
    pub currency: String,
    /// The claim that asks for it, `stripe:re_…`: what the provider gave, so a ledger that lost its last commits asks for
    /// the same again. In the idempotency key, and in the metadata by which a reversal is found again.
    pub claim: String,
    /// Whether to give the seller its part of the application fee back, too. Stripe refuses it where there is no fee.
    pub refund_application_fee: bool,
    /// Counts the idempotency keys of this reversal. Raised only when an earlier key's answer is known not to be the
    /// last word.
    pub generation: i32,
}

impl ReverseTransfer {
    /// The key under which Stripe runs this command at most once in 24 hours.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        key(&["reverse", &self.claim, &self.transfer_id], self.generation)
    }

    /// The form to send, in a fixed order. It holds nothing that varies by attempt or by generation.
    #[must_use]
    pub fn form(&self) -> Vec<(&'static str, String)> {
        let mut form = vec![("amount", self.amount.to_string()), (CLAIM_FIELD, self.claim.clone())];
        if self.refund_application_fee {
            form.push(("refund_application_fee", "true".to_owned()));
        }
        form
    }
}

/// The command to transfer money to a seller: everything that `POST /v1/transfers` is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTransfer {
    /// Which of the payment's transfers it is, `acct_…:6000eur:0`: what the marketplace gave, whatever the order. With
    /// `payment_ref` it is in the idempotency key, and in the metadata by which a transfer is found again.
    pub name: String,
    /// The provider's id of the payment that the money is from.
    pub payment_ref: String,
    /// ISO 4217, lower case.
    pub payment_currency: String,
    /// How much, in the currency's minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The seller's connected account, `acct_…`.
    pub destination: String,
    /// Counts the idempotency keys of this transfer.
    pub generation: i32,
}

impl CreateTransfer {
    /// The key under which Stripe runs this command at most once in 24 hours.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        key(&["create", &self.payment_ref, &self.name], self.generation)
    }

    /// The charge that the money comes from, where that is known: then it may be transferred before it is available.
    /// Stripe takes no charge of another currency.
    #[must_use]
    pub fn source_transaction(&self) -> Option<&str> {
        let is_charge = self.payment_ref.starts_with("ch_") || self.payment_ref.starts_with("py_");
        (is_charge && self.payment_currency == self.currency).then_some(self.payment_ref.as_str())
    }

    /// The form to send, in a fixed order. It holds nothing that varies by attempt or by generation.
    ///
    /// With a `source_transaction` Stripe chooses the transfer's group itself, the charge's, so that none is sent
    /// (<https://docs.stripe.com/connect/separate-charges-and-transfers#transfer-availability>).
    #[must_use]
    pub fn form(&self) -> [(&'static str, String); 6] {
        let (name, value) = match self.source_transaction() {
            Some(charge) => ("source_transaction", charge),
            None => ("transfer_group", self.payment_ref.as_str()),
        };
        [
            ("amount", self.amount.to_string()),
            ("currency", self.currency.clone()),
            ("destination", self.destination.clone()),
            (name, value.to_owned()),
            (NAME_FIELD, self.name.clone()),
            (PAYMENT_FIELD, self.payment_ref.clone()),
        ]
    }

    /// What the transfer of these terms is called among its payment's: `registered` is its amount before anything was withheld,
    /// `ordinal` counts the equal ones.
    #[must_use]
    pub fn name_of(destination: &str, registered: i64, currency: &str, ordinal: i32) -> String {
        format!("{destination}:{registered}{currency}:{ordinal}")
    }

    /// Which of Stripe's transfers to look through for this one: those of its group, or where Stripe has chosen that, those
    /// to its destination.
    #[must_use]
    pub fn filter(&self) -> (&'static str, &str) {
        match self.source_transaction() {
            Some(_) => ("destination", &self.destination),
            None => ("transfer_group", &self.payment_ref),
        }
    }
}

const NAME_FIELD: &str = "metadata[clawback_transfer]";
/// The metadata key that carries a transfer's name.
const NAME: &str = "clawback_transfer";
const PAYMENT_FIELD: &str = "metadata[payment_ref]";
/// The metadata key that carries the payment of a transfer that Clawback has created.
const PAYMENT: &str = "payment_ref";
const CLAIM_FIELD: &str = "metadata[clawback_claim]";
/// The metadata key that carries a reversal's claim.
const CLAIM: &str = "clawback_claim";

/// A hash, since what it is made of may be longer than the 255 characters that Stripe allows.
fn key(parts: &[&str], generation: i32) -> String {
    let digest = hex::encode(Sha256::digest(parts.join("\0")));
    format!("clawback-{}-{generation}", &digest[..32])
}

/// A transfer as Stripe shows it, reduced to what Clawback looks at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transfer {
    /// `tr_…`
    pub id: String,
    /// What was transferred, in minor units.
    pub amount: i64,
    /// What reversals have taken back so far, ours and everybody else's, in minor units.
    pub amount_reversed: i64,
    /// True only when all of it has been taken back.
    pub reversed: bool,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The connected account, `acct_…`.
    #[serde(default, deserialize_with = "optional_id")]
    pub destination: Option<String>,
    /// The charge that the money is from, if that was said.
    #[serde(default, deserialize_with = "optional_id")]
    pub source_transaction: Option<String>,
    /// What it has in common with the charge that it belongs to.
    #[serde(default)]
    pub transfer_group: Option<String>,
    /// False for objects of a sandbox.
    #[serde(default)]
    pub livemode: bool,
    /// When Stripe created it, in seconds since 1970 UTC.
    #[serde(default)]
    pub created: i64,
    /// What whoever created it noted on it.
    #[serde(default, deserialize_with = "or_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Transfer {
    /// The transfer's payment and its name among that payment's; `None` for one that another program made.
    #[must_use]
    pub fn name(&self) -> Option<(&str, &str)> {
        let noted = |key: &str| self.metadata.get(key).map(String::as_str);
        noted(PAYMENT).zip(noted(NAME))
    }

    /// What is not as `asked`, in words; none when all is. Missing metadata is no difference: the answer to a call is by
    /// our key.
    #[must_use]
    pub fn difference(&self, asked: &CreateTransfer) -> Option<String> {
        if self.id.is_empty() {
            return Some("the answer has an empty id".to_owned());
        }
        if self.amount != asked.amount || !self.currency.eq_ignore_ascii_case(&asked.currency) {
            let (id, amount, currency) = (&self.id, self.amount, &self.currency);
            return Some(format!("{id} is {amount} {currency}, not {} {}", asked.amount, asked.currency));
        }
        if self.destination.as_ref() != Some(&asked.destination) {
            let (id, to) = (&self.id, self.destination.as_deref().unwrap_or("nobody"));
            return Some(format!("{id} went to {to}, not to {}", asked.destination));
        }
        match self.name() {
            Some((payment, name)) if (payment, name) != (asked.payment_ref.as_str(), asked.name.as_str()) => {
                let (id, asked_payment, asked_name) = (&self.id, &asked.payment_ref, &asked.name);
                Some(format!("{id} is {name} of payment {payment}, not {asked_name} of payment {asked_payment}"))
            }
            _ => None,
        }
    }

    /// Whether it is one of Clawback's, and of another amount than was registered.
    #[must_use]
    pub fn is_less_than_named(&self) -> bool {
        let terms = format!(":{}{}:", self.amount, self.currency.to_ascii_lowercase());
        self.name().is_some_and(|(_, name)| !name.contains(&terms))
    }

    /// Whether `reversals`, read after this, account for everything that it says is reversed. Lists can lag.
    #[must_use]
    pub fn is_explained_by(&self, reversals: &[TransferReversal]) -> bool {
        let listed: i64 = reversals.iter().filter(|reversal| reversal.counts()).map(|reversal| reversal.amount).sum();
        listed >= self.amount_reversed
    }
}

/// A transfer reversal as Stripe shows it, reduced to what Clawback looks at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TransferReversal {
    /// `trr_…`
    pub id: String,
    /// What it takes back, in minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The transfer, `tr_…`.
    #[serde(deserialize_with = "id")]
    pub transfer: String,
    /// Only newer API behaviour has it: `pending`, `succeeded`, `failed`, `canceled`. None means done.
    #[serde(default)]
    pub status: Option<String>,
    /// What moved the money (`txn_…`).
    #[serde(default, deserialize_with = "optional_id")]
    pub balance_transaction: Option<String>,
    /// When Stripe created it, in seconds since 1970 UTC.
    #[serde(default)]
    pub created: i64,
    /// The refund at Stripe that caused it (`re_…`), when Stripe itself reversed.
    #[serde(default, deserialize_with = "optional_id")]
    pub source_refund: Option<String>,
    /// What whoever created it noted on it.
    #[serde(default, deserialize_with = "or_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl TransferReversal {
    /// The claim that asked for it; `None` for one that another program made.
    #[must_use]
    pub fn claim(&self) -> Option<&str> {
        self.metadata.get(CLAIM).map(String::as_str)
    }

    /// Whether the money is back.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.status.as_deref(), None | Some("succeeded"))
    }

    /// Whether it takes money, now or later: all but those that have failed or were canceled.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }
}

/// Stripe may send null where nothing was noted.
fn or_empty<'de, D: Deserializer<'de>>(metadata: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(metadata)?.unwrap_or_default())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_form_varies_neither_by_attempt_nor_by_generation_and_the_key_only_by_generation() {
        let command = ReverseTransfer {
            transfer_id: "tr_1".to_owned(),
            amount: 700,
            currency: "eur".to_owned(),
            claim: "stripe:re_1".to_owned(),
            refund_application_fee: false,
            generation: 3,
        };
        let next = ReverseTransfer { generation: 4, ..command.clone() };
        assert_eq!(command.form(), next.form());
        assert_eq!(command.idempotency_key().replace("-3", "-4"), next.idempotency_key());
        let others = [
            ReverseTransfer { claim: "stripe:re_2".to_owned(), ..command.clone() },
            ReverseTransfer { claim: "hyperswitch:re_1".to_owned(), ..command.clone() },
            ReverseTransfer { transfer_id: "tr_2".to_owned(), ..command.clone() },
        ];
        for other in others {
            assert_ne!(other.idempotency_key(), command.idempotency_key());
        }
        let with_fee = ReverseTransfer { refund_application_fee: true, ..command.clone() };
        assert_eq!(with_fee.form()[2], ("refund_application_fee", "true".to_owned()));
        assert_eq!(with_fee.form()[..2], command.form(), "nothing is sent where there is no fee to refund");
        let long = ReverseTransfer { claim: "x".repeat(300), ..command };
        assert!(long.idempotency_key().len() <= 255);
    }

    fn creation() -> CreateTransfer {
        CreateTransfer {
            name: CreateTransfer::name_of("acct_1", 700, "eur", 0),
            payment_ref: "pi_1".to_owned(),
            payment_currency: "eur".to_owned(),
            amount: 700,
            currency: "eur".to_owned(),
            destination: "acct_1".to_owned(),
            generation: 3,
        }
    }

    #[test]
    fn the_form_of_a_creation_varies_neither_by_attempt_nor_by_generation_and_the_key_only_by_generation() {
        for payment_ref in ["pi_1", "ch_1"] {
            let command = CreateTransfer { payment_ref: payment_ref.to_owned(), ..creation() };
            let next = CreateTransfer { generation: 4, ..command.clone() };
            assert_eq!(command.form(), next.form());
            assert_eq!(command.filter(), next.filter());
            assert_ne!(command.idempotency_key(), next.idempotency_key());
        }
        let others = [
            CreateTransfer { name: CreateTransfer::name_of("acct_1", 700, "eur", 1), ..creation() },
            CreateTransfer { payment_ref: "pi_2".to_owned(), ..creation() },
        ];
        for other in others {
            assert_ne!(other.idempotency_key(), creation().idempotency_key());
        }
        // Less of it is asked for once a claim has come first: still the same transfer.
        let smaller = CreateTransfer { amount: 600, ..creation() };
        assert_eq!(smaller.idempotency_key(), creation().idempotency_key());
    }

    #[test]
    fn the_money_comes_from_the_charge_only_where_a_charge_of_the_same_currency_is_named() {
        for (payment_ref, payment_currency, source, filter) in [
            ("ch_1", "eur", Some("ch_1"), ("destination", "acct_1")),
            ("py_1", "eur", Some("py_1"), ("destination", "acct_1")),
            ("ch_1", "usd", None, ("transfer_group", "ch_1")),
            ("pi_1", "eur", None, ("transfer_group", "pi_1")),
            ("order-1", "eur", None, ("transfer_group", "order-1")),
        ] {
            let (payment_ref, payment_currency) = (payment_ref.to_owned(), payment_currency.to_owned());
            let command = CreateTransfer { payment_ref, payment_currency, ..creation() };
            assert_eq!((command.source_transaction(), command.filter()), (source, filter));
            let sent =
                |name: &str| command.form().iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone());
            assert_eq!(sent("source_transaction").as_deref(), source);
            assert_eq!(sent("transfer_group").is_some(), source.is_none());
        }
    }

    #[test]
    fn a_reversal_is_ours_only_with_a_claim_in_its_metadata() {
        let claim = |metadata: &str| {
            let body =
                format!(r#"{{"id":"trr_1","amount":1,"currency":"eur","transfer":"tr_1","metadata":{metadata}}}"#);
            serde_json::from_str::<TransferReversal>(&body).unwrap().claim().map(ToOwned::to_owned)
        };
        assert_eq!(claim(r#"{"clawback_claim":"stripe:re_1"}"#).as_deref(), Some("stripe:re_1"));
        assert_eq!(claim(r#"{"order":"1"}"#), None);
        assert_eq!(claim("{}"), None);
        assert_eq!(claim("null"), None);
    }
}
