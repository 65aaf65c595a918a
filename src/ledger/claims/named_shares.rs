//! What a refund itself asks of the payment's transfers, instead of by ratio: whether that fits them. Pure; called by the
//! matching.
//!
//! Naming shares replaces the ratio for the whole refund: of a transfer that is not named, and of one that is named with 0,
//! nothing is taken. An amount never shrinks silently; a share that does not fit makes the refund a conflict.

use super::split::Share;
use crate::ledger::LedgerError;
use crate::ledger::events::NamedShare;
use crate::ledger::input::FieldProblem;
use crate::ledger::schema::transfer;

/// How much of a foreign text an error shows.
const SHOWN_CHARS: usize = 60;

/// Why a refund does not fit its payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Where that is in the body of `POST /v1/refunds`.
    pub(super) field: String,
    /// With the value and what is allowed.
    pub(super) problem: String,
}

impl From<Conflict> for LedgerError {
    fn from(Conflict { field, problem }: Conflict) -> Self {
        Self::Invalid(vec![FieldProblem::new(field, problem)])
    }
}

/// What to ask of each of `transfers`, in their order. `shares` says what has been asked of them already.
pub(super) fn resolve(
    named: &[NamedShare],
    transfers: &[transfer::Model],
    shares: &[Share],
) -> Result<Vec<i64>, Conflict> {
    let mut asks = vec![None; transfers.len()];
    for (index, share) in named.iter().enumerate() {
        let conflict = |field: &str, problem: String| Conflict {
            field: format!("transfers[{index}].{field}"),
            problem: format!("the share of \"{}\" {problem}", shown(&share.transfer_id)),
        };
        let is_it = |transfer: &transfer::Model| {
            transfer.stripe_transfer_id.as_ref() == Some(&share.transfer_id)
                || share.transfer_id.parse().is_ok_and(|id: uuid::Uuid| id == transfer.id)
        };
        let Some(at) = transfers.iter().position(is_it) else {
            let ids: Vec<String> = transfers.iter().take(10).map(name).collect();
            let problem = format!("is no transfer of this payment; allowed: {}", ids.join(", "));
            return Err(conflict("transfer_id", problem));
        };
        if asks[at].is_some() {
            return Err(conflict("transfer_id", format!("names transfer {} a second time", name(&transfers[at]))));
        }
        let Some(amount) = amount(&share.amount) else {
            let problem = format!("is \"{}\"; allowed: minor units in digits, from 0", shown(&share.amount));
            return Err(conflict("amount", problem));
        };
        let Share { amount: whole, by_ratio, by_name, currency } = &shares[at];
        let left = whole - by_ratio - by_name;
        if amount > left {
            let problem = format!(
                "is {amount}; allowed: at most {left}, which is what transfer {} of {whole} {currency} has left",
                name(&transfers[at])
            );
            return Err(conflict("amount", problem));
        }
        asks[at] = Some(amount);
    }
    Ok(asks.into_iter().map(Option::unwrap_or_default).collect())
}

/// Digits alone: no sign, no point, no space.
fn amount(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn name(transfer: &transfer::Model) -> String {
    transfer.stripe_transfer_id.clone().unwrap_or_else(|| transfer.id.to_string())
}

/// Cut, and without characters that PostgreSQL refuses or that a terminal obeys.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
