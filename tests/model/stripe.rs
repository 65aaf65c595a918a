//! Stripe as a small, strict model: it saves the first answer to each idempotency key, whatever that was, and gives it again for a
//! day; it refuses a key with other parameters; it never takes more than a transfer has left.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::stripe::{Meaning, Report, ReverseTransfer, Transfer, TransferReversal};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stripe {
    /// What was transferred.
    transfers: BTreeMap<String, i64>,
    /// Oldest first.
    pub(super) reversals: Vec<Reversal>,
    keys: BTreeMap<String, Saved>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reversal {
    pub(super) id: String,
    pub(super) transfer: String,
    pub(super) claim: String,
    pub(super) amount: i64,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) key: String,
    pub(super) transfer: String,
    pub(super) claim: String,
    pub(super) amount: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Saved {
    request: Request,
    answer: Said,
    at: DateTime<Utc>,
}

/// What is wrong at Stripe when a request is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trouble {
    /// The seller's balance is too low.
    NoBalance,
    /// A 500, and nothing was done.
    Fails,
    /// A 500, and all the same it was done.
    FailsAfterAll,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Said {
    Reversed(String),
    NoBalance,
    ServerError,
    AlreadyReversed,
    MoreThanLeft,
    KeyMisused,
    /// Nothing came back.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) said: Said,
    pub(super) replayed: bool,
}

impl Request {
    pub(super) fn of(command: &ReverseTransfer) -> Self {
        let ReverseTransfer { transfer_id, claim, amount, .. } = command.clone();
        Self { key: command.idempotency_key(), transfer: transfer_id, claim, amount }
    }
}

impl Stripe {
    pub(super) fn with_transfers(parts: &[i64]) -> Self {
        let transfers =
            parts.iter().enumerate().map(|(position, amount)| (format!("tr_{position}"), *amount)).collect();
        Self { transfers, reversals: Vec::new(), keys: BTreeMap::new() }
    }

    pub(super) fn taken(&self, transfer: &str) -> i64 {
        self.reversals.iter().filter(|it| it.transfer == transfer).map(|it| it.amount).sum()
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// As it was when it had these reversals.
    pub(super) fn with_reversals(&self, reversals: &[Reversal]) -> Self {
        Self { reversals: reversals.to_vec(), ..self.clone() }
    }

    /// A key lives for a day at least.
    pub(super) fn forget_old_keys(&mut self, now: DateTime<Utc>) {
        self.keys.retain(|_, saved| now - saved.at < TimeDelta::hours(24));
    }

    pub(super) fn execute(&mut self, request: Request, trouble: Option<Trouble>, now: DateTime<Utc>) -> Answer {
        if let Some(saved) = self.keys.get(&request.key) {
            let is_same = saved.request == request;
            let said = if is_same { saved.answer.clone() } else { Said::KeyMisused };
            return Answer { said, replayed: is_same };
        }
        let left = self.transfers.get(&request.transfer).copied().unwrap_or_default() - self.taken(&request.transfer);
        let answer = match trouble {
            Some(Trouble::NoBalance) => Said::NoBalance,
            Some(Trouble::Fails) => Said::ServerError,
            _ if left == 0 => Said::AlreadyReversed,
            _ if request.amount > left => Said::MoreThanLeft,
            trouble => {
                let id = format!("trr_{}", self.reversals.len());
                let Request { transfer, claim, amount, .. } = request.clone();
                self.reversals.push(Reversal { id: id.clone(), transfer, claim, amount });
                if trouble.is_some() { Said::ServerError } else { Said::Reversed(id) }
            }
        };
        self.keys.insert(request.key.clone(), Saved { request, answer: answer.clone(), at: now });
        Answer { said: answer, replayed: false }
    }

    /// The transfer and its reversals, as the client reads them.
    pub(super) fn read(&self, transfer: &str, destination: &str) -> (Transfer, Vec<TransferReversal>) {
        let amount = self.transfers.get(transfer).copied().unwrap_or_default();
        let listed = self.reversals.iter().filter(|it| it.transfer == transfer);
        let listed = listed.map(|it| TransferReversal {
            id: it.id.clone(),
            amount: it.amount,
            currency: "eur".to_owned(),
            transfer: it.transfer.clone(),
            status: None,
            balance_transaction: None,
            created: 0,
            source_refund: None,
            metadata: BTreeMap::from([("clawback_claim".to_owned(), it.claim.clone())]),
        });
        let transfer = Transfer {
            id: transfer.to_owned(),
            amount,
            amount_reversed: self.taken(transfer),
            reversed: self.taken(transfer) == amount,
            currency: "eur".to_owned(),
            destination: Some(destination.to_owned()),
            source_transaction: None,
            transfer_group: None,
            livemode: false,
            created: 0,
            metadata: BTreeMap::new(),
        };
        (transfer, listed.collect())
    }
}

impl Answer {
    pub(super) const NONE: Self = Self { said: Said::Nothing, replayed: false };

    /// As the client's classification reports it.
    pub(super) fn report(&self) -> Report {
        let meaning = match &self.said {
            Said::Reversed(id) => Meaning::Reversed { reversal_id: id.clone(), balance_transaction: None },
            Said::NoBalance => Meaning::BalanceInsufficient,
            Said::ServerError => Meaning::ServerError,
            Said::AlreadyReversed => Meaning::AlreadyReversed,
            Said::MoreThanLeft => Meaning::MoreThanLeft,
            Said::KeyMisused => Meaning::KeyMisused,
            Said::Nothing => Meaning::Unreached,
        };
        let (http_status, request_id, code, retry_after) = (None, None, None, None);
        Report { meaning, http_status, request_id, code, message: String::new(), retry_after, replayed: self.replayed }
    }
}
