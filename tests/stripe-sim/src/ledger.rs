//! What really happened: the transfers with their reversals, the balances, and every request with its answer.
//!
//! This is the simulator's own storage and, cloned, what tests compare with Clawback's ledger. It moves money by its
//! rules and knows nothing of HTTP, keys or faults. API keys are not kept.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::faults::Fault;

/// Everything that happened since the start or the last reset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// By id.
    pub transfers: BTreeMap<String, Transfer>,
    /// What connected accounts and the [`PLATFORM`] have, in minor units; an account that is not in here has as much as is
    /// asked of it.
    pub balances: BTreeMap<String, i64>,
    /// In the order of arrival.
    pub requests: Vec<Request>,
}

/// The account that transfers come from, in the balances.
pub const PLATFORM: &str = "acct_platform";

/// A transfer to a connected account.
#[derive(Debug, Clone, Serialize)]
pub struct Transfer {
    /// `tr_…`
    pub id: String,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The connected account, `acct_…`.
    pub destination: String,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// As whoever created it gave it.
    pub metadata: BTreeMap<String, String>,
    /// As whoever created it gave it.
    pub description: Option<String>,
    /// As whoever created it gave it.
    pub transfer_group: Option<String>,
    /// As whoever created it gave it.
    pub source_transaction: Option<String>,
    /// Oldest first.
    pub reversals: Vec<Reversal>,
}

/// A reversal of part or all of a transfer.
#[derive(Debug, Clone, Serialize)]
pub struct Reversal {
    /// `trr_…`
    pub id: String,
    /// In minor units.
    pub amount: i64,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// As whoever created it gave it.
    pub metadata: BTreeMap<String, String>,
    /// `pending`, `succeeded`, `failed`, `canceled`; none (done) unless a fault made it so.
    pub status: Option<String>,
    /// The refund (`re_…`) for which Stripe itself took the money back; none for all others.
    pub source_refund: Option<String>,
    /// The key under which it was created; none for one that came from elsewhere.
    pub idempotency_key: Option<String>,
}

/// A request under `/v1`, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// What its `Request-Id` header said, `req_…`.
    pub id: String,
    /// `GET`, `POST`, …
    pub method: String,
    /// As it came, percent-encoding included.
    pub path: String,
    /// What stood behind the `?`; empty for none.
    pub query: String,
    /// Its `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// As it came, byte for byte where it is UTF-8.
    pub body: String,
    /// When it came, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// The status that was answered; none while it is under way, and for a dropped connection.
    pub status: Option<u16>,
    /// Whether the connection was cut instead of an answer.
    pub dropped: bool,
    /// Whether the answer was one saved for its idempotency key.
    pub replayed: bool,
    /// The fault that it met.
    pub fault: Option<Fault>,
}

impl Ledger {
    /// The reversals of a transfer, oldest first; none for an unknown transfer.
    #[must_use]
    pub fn reversals(&self, transfer_id: &str) -> &[Reversal] {
        self.transfers.get(transfer_id).map_or(&[], |transfer| &transfer.reversals)
    }

    /// The requests to reverse a transfer, whatever was answered, in the order of arrival.
    pub fn reversal_posts(&self, transfer_id: &str) -> impl Iterator<Item = &Request> {
        let path = format!("/v1/transfers/{transfer_id}/reversals");
        self.requests.iter().filter(move |request| request.method == "POST" && request.path == path)
    }

    /// The requests to create a transfer to this account, whatever was answered, in the order of arrival.
    pub fn creation_posts(&self, destination: &str) -> impl Iterator<Item = &Request> {
        let names_it = format!("destination={destination}");
        self.requests.iter().filter(move |request| {
            let is_creation = request.method == "POST" && request.path == "/v1/transfers";
            is_creation && request.body.split('&').any(|pair| pair == names_it)
        })
    }

    /// The transfers to an account, oldest first.
    #[must_use]
    pub fn transfers_to(&self, destination: &str) -> Vec<&Transfer> {
        let mut found: Vec<_> =
            self.transfers.values().filter(|transfer| transfer.destination == destination).collect();
        found.sort_by_key(|transfer| transfer.created);
        found
    }

    /// Sets what an account has; `None` for as much as is asked of it.
    pub(crate) fn set_balance(&mut self, account: &str, amount: Option<i64>) {
        match amount {
            Some(amount) => self.balances.insert(account.to_owned(), amount),
            None => self.balances.remove(account),
        };
    }

    /// Moves money into an account whose balance is counted.
    pub(crate) fn credit(&mut self, account: &str, amount: i64) {
        if let Some(balance) = self.balances.get_mut(account) {
            *balance += amount;
        }
    }

    /// Whether the account can give that much.
    pub(crate) fn affords(&self, account: &str, amount: i64) -> bool {
        self.balances.get(account).is_none_or(|balance| *balance >= amount)
    }
}

impl Transfer {
    /// What reversals have taken back or reserved: all that have not failed.
    #[must_use]
    pub fn amount_reversed(&self) -> i64 {
        self.reversals.iter().filter(|reversal| reversal.counts()).map(|reversal| reversal.amount).sum()
    }

    /// What may still be reversed.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.amount - self.amount_reversed()
    }
}

impl Reversal {
    /// Whether it takes money: a failed or canceled one does not, a pending one reserves it.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }
}
