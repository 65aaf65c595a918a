//! How much of a debt a replay takes: an amount, or what Stripe says is left of the transfer. One function for the API and the
//! command line.

use std::str::FromStr;

use crate::ledger::{Ledger, LedgerError};
use crate::reconcile::StripeNow;

/// What a replay takes of what is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What Stripe says is left of the transfer.
    Left,
    /// Minor units, at least 1.
    Of(i64),
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "left" => Ok(Self::Left),
            text => match text.parse() {
                Ok(amount @ 1..) => Ok(Self::Of(amount)),
                _ => Err("must be a positive integer in minor units, or left".to_owned()),
            },
        }
    }
}

/// How much a replay of the reversal `id`, Clawback's id or Stripe's, takes: for [`Part::Left`] no more than it owes.
///
/// # Errors
/// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when nothing is left, or nobody can say; [`LedgerError::Database`].
pub async fn amount(ledger: &Ledger, stripe: Option<&StripeNow>, id: &str, part: Part) -> Result<i64, LedgerError> {
    let conflict = |problem: String| Err(LedgerError::Conflict(problem));
    if let Part::Of(amount) = part {
        return Ok(amount);
    }
    let not_found = || LedgerError::NotFound { entity: "reversal", id: id.to_owned() };
    let reversal = ledger.reversal(id).await?.ok_or_else(not_found)?;
    let Some(stripe) = stripe else {
        return conflict(
            "the amount \"left\" asks Stripe what is left: set STRIPE_API_KEY, or name the amount".to_owned(),
        );
    };
    let transfer = ledger.transfer(&reversal.transfer_id.to_string()).await?;
    let Some(transfer) = transfer.and_then(|transfer| transfer.stripe_transfer_id) else {
        return conflict(format!("the transfer of reversal {} does not exist at Stripe", reversal.id));
    };
    match stripe.left(&transfer).await {
        Ok(..=0) => conflict(format!(
            "nothing is left of {transfer} at Stripe; `clawback reversals close` records how the debt was settled"
        )),
        Ok(left) => Ok(left.min(reversal.amount)),
        Err(problem) => conflict(format!("Stripe did not say what is left of {transfer}: {problem}")),
    }
}
