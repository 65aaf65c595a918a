//! A transfer written in one word, for the command line and the environment: `tr_1:9000:eur:acct_1`.

use std::str::FromStr;

/// A transfer that exists from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferSpec {
    /// `tr_…`
    pub id: String,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The connected account, `acct_…`.
    pub destination: String,
}

impl FromStr for TransferSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<TransferSpec, String> {
        let [id, amount, currency, destination] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("transfer {text:?}: expected ID:AMOUNT:CURRENCY:ACCOUNT, as in tr_1:9000:eur:acct_1"));
        };
        let amount = amount.parse().ok().filter(|amount| *amount > 0).ok_or_else(|| {
            format!("transfer {text:?}: the amount {amount:?} is not a whole number of minor units above 0")
        })?;
        if currency.len() != 3 || !currency.chars().all(|letter| letter.is_ascii_lowercase()) {
            return Err(format!("transfer {text:?}: the currency {currency:?} is not three lower-case letters"));
        }
        for (name, value, prefix) in [("id", id, "tr_"), ("account", destination, "acct_")] {
            if !value.starts_with(prefix) {
                return Err(format!("transfer {text:?}: the {name} {value:?} does not begin with {prefix}"));
            }
        }
        Ok(TransferSpec {
            id: id.to_owned(),
            amount,
            currency: currency.to_owned(),
            destination: destination.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_written_as_id_amount_currency_and_account() {
        let spec: TransferSpec = "tr_1:9000:eur:acct_1".parse().unwrap();
        let expected = ("tr_1", 9000, "eur", "acct_1");
        assert_eq!((spec.id.as_str(), spec.amount, spec.currency.as_str(), spec.destination.as_str()), expected);
    }

    #[test]
    fn what_is_wrong_with_a_transfer_is_said_with_its_value() {
        for (text, value) in [
            ("tr_1:9000:eur", "\"tr_1:9000:eur\""),
            ("tr_1:0:eur:acct_1", "\"0\""),
            ("tr_1:9.5:eur:acct_1", "\"9.5\""),
            ("tr_1:9000:EUR:acct_1", "\"EUR\""),
            ("1:9000:eur:acct_1", "\"1\""),
            ("tr_1:9000:eur:1", "\"1\""),
        ] {
            let error = text.parse::<TransferSpec>().unwrap_err();
            assert!(error.contains(value), "{text}: {error}");
        }
    }
}
