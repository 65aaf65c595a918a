//! What really happened: payments, transfers with their reversals, balances, and the requests with their answers.
//!
//! This is the simulator's own storage and, cloned, what tests compare with Clawback's ledger. It moves money by its
//! rules and knows nothing of HTTP, keys or faults. API keys are not kept.

mod payments;

use std::collections::{BTreeMap, HashMap};
use std::iter::once;

use chrono::{DateTime, TimeDelta, Utc};
use indexmap::IndexMap;
use serde::Serialize;

pub use self::payments::{BalanceTransaction, Charge, Dispute, DisputeStatus, PaymentIntent, Refund, RefundStatus};

use crate::faults::Fault;

/// Everything that happened since the start or the last reset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// By id, oldest first.
    pub transfers: IndexMap<String, Transfer>,
    /// By id, oldest first.
    pub payment_intents: IndexMap<String, PaymentIntent>,
    /// By id, oldest first.
    pub charges: IndexMap<String, Charge>,
    /// By id, oldest first.
    pub refunds: IndexMap<String, Refund>,
    /// By id, oldest first.
    pub disputes: IndexMap<String, Dispute>,
    /// What connected accounts and the [`PLATFORM`] have, in minor units; an account that is not in here has as much as is
    /// asked of it.
    pub balances: BTreeMap<String, i64>,
    /// In the order of arrival; only the newest where the log is bounded.
    pub requests: Vec<Request>,
    /// What happened so far, requests included that the log has dropped.
    pub counts: Counts,
    /// Positions in `transfers` by `transfer_group`.
    #[serde(skip)]
    groups: HashMap<String, Vec<usize>>,
}

/// What happened so far, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests under `/v1`, whatever was answered.
    pub requests: u64,
    /// Of these, those that got the answer saved for their key.
    pub replays: u64,
    /// Reversals that were created, by requests or elsewhere.
    pub reversals: u64,
    /// The sum of their amounts, in minor units, whatever their currencies.
    pub amount_reversed: i64,
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
    /// The charge (`ch_…`, `py_…`) that the money is from.
    pub source_transaction: Option<String>,
    /// Whether it belongs to a destination charge: Stripe then takes it back whatever the balance.
    pub of_destination_charge: bool,
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
    /// How much of the application fee it gave back to the connected account, in minor units.
    pub application_fee_refunded: i64,
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

    /// The transfers of a group, oldest first.
    pub(crate) fn group(&self, group: &str) -> impl DoubleEndedIterator<Item = &Transfer> {
        let at = self.groups.get(group).map_or(&[][..], Vec::as_slice);
        at.iter().filter_map(|at| self.transfers.get_index(*at).map(|(_, transfer)| transfer))
    }

    /// Gives a charge and its payment intent a group.
    pub(crate) fn join_group(&mut self, charge: &str, group: &str) {
        let Some(charge) = self.charges.get_mut(charge) else { return };
        charge.transfer_group = Some(group.to_owned());
        if let Some(intent) = charge.payment_intent.as_ref().and_then(|id| self.payment_intents.get_mut(id)) {
            intent.transfer_group = Some(group.to_owned());
        }
    }

    /// Puts a transfer that has no group into one.
    pub(crate) fn group_transfer(&mut self, id: &str, group: Option<String>) {
        let Some((at, _, transfer)) = self.transfers.get_full_mut(id) else { return };
        if let Some(group) = &group {
            self.groups.entry(group.clone()).or_default().push(at);
        }
        transfer.transfer_group = group;
    }

    pub(crate) fn add(&mut self, transfer: Transfer) {
        if let Some(group) = &transfer.transfer_group {
            self.groups.entry(group.clone()).or_default().push(self.transfers.len());
        }
        self.transfers.insert(transfer.id.clone(), transfer);
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

    /// Lets everything have happened that much earlier, but for the log of requests.
    pub(crate) fn age(&mut self, by: TimeDelta) {
        let transfers = self.transfers.values_mut();
        let transfers =
            transfers.flat_map(|of| once(&mut of.created).chain(of.reversals.iter_mut().map(|of| &mut of.created)));
        let disputes = self.disputes.values_mut();
        let disputes = disputes
            .flat_map(|of| once(&mut of.created).chain(of.balance_transactions.iter_mut().map(|of| &mut of.created)));
        let times = transfers.chain(disputes).chain(self.charges.values_mut().map(|of| &mut of.created));
        let times = times.chain(self.payment_intents.values_mut().map(|of| &mut of.created));
        times.chain(self.refunds.values_mut().map(|of| &mut of.created)).for_each(|created| *created -= by);
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
