//! The simulator as tests hold it: started on a free port of the loopback, and stopped when it is dropped.

mod payments;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinHandle;

use crate::builder::Builder;
use crate::faults::{Access, Fault};
use crate::ledger::{Counts, Ledger};
use crate::limiter::Limiter;
use crate::operations::{self, add_transfer};
use crate::random_faults::RandomFaults;
use crate::spec::TransferSpec;
use crate::state::{Shared, State};

/// A running simulator. Its methods and its HTTP door act on the same state.
#[derive(Debug)]
pub struct Sim {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    pub(crate) server: JoinHandle<()>,
}

/// Which requests meet a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All.
    Any,
    /// Those about this transfer or other object, by its id; or those that create a transfer, by its destination.
    Transfer(String),
}

impl From<&str> for Target {
    fn from(id: &str) -> Target {
        Target::Transfer(id.to_owned())
    }
}

impl From<&String> for Target {
    fn from(id: &String) -> Target {
        Target::Transfer(id.clone())
    }
}

impl Sim {
    /// Starts one with the defaults: a free port, any `sk_test_…` key, no rate limit, unlimited balances.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and when the loopback has no free port.
    #[must_use]
    pub fn start() -> Sim {
        Sim::builder().start()
    }

    /// To start one that is set up differently.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What to use as Stripe's API base: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a transfer there, as if it had been created long before.
    ///
    /// # Panics
    /// When there is one of that id, or the amount is not above 0.
    pub fn add_transfer(&self, id: &str, amount: i64, currency: &str, destination: &str) {
        let (id, currency, destination) = (id.to_owned(), currency.to_owned(), destination.to_owned());
        let spec = TransferSpec { id, amount, currency, destination };
        let added = self.shared.change(|state| add_transfer(state, spec));
        assert_eq!(added, Ok(()));
    }

    /// The next `times` writes (POST) to the target meet the fault. Faults are met in the order in which they were set.
    pub fn fault(&self, target: impl Into<Target>, fault: Fault, times: u32) {
        self.add_fault(target.into(), Access::Writes, fault, times);
    }

    /// The next `times` reads (GET) of the target meet the fault.
    ///
    /// # Panics
    /// When the fault has no meaning for reads, as [`Fault::Pending`] has none.
    pub fn fault_reads(&self, target: impl Into<Target>, fault: Fault, times: u32) {
        self.add_fault(target.into(), Access::Reads, fault, times);
    }

    fn add_fault(&self, target: Target, access: Access, fault: Fault, times: u32) {
        let transfer = match target {
            Target::Any => None,
            Target::Transfer(id) => Some(id),
        };
        let added = self.shared.change(|state| state.faults.add(transfer, access, fault, times));
        assert_eq!(added, Ok(()));
    }

    /// No fault waits any longer.
    pub fn clear_faults(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    /// What really happened.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.read(|state| state.ledger.clone())
    }

    /// What happened so far, in numbers: cheap however much that is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.read(|state| state.ledger.counts)
    }

    /// Puts the transfers `tr_bench_1` to `tr_bench_{count}` there, each of `amount` euro cents, for `acct_bench`.
    ///
    /// # Panics
    /// When there is one of these already, or the amount is not above 0.
    pub fn seed_transfers(&self, count: u32, amount: i64) {
        let seeded = self.shared.change(|state| operations::seed_transfers(state, count, amount));
        assert_eq!(seeded, Ok(()));
    }

    /// Whether a reversal without metadata shows `"metadata": null` instead of an empty object.
    pub fn set_null_metadata(&self, on: bool) {
        self.shared.change(|state| state.null_metadata = on);
    }

    /// Waits until the condition holds of what really happened. It is looked at after every change; it must not call
    /// the simulator.
    ///
    /// # Errors
    /// [`NotInTime`], with the requests so far.
    pub async fn wait_for(&self, condition: impl Fn(&Ledger) -> bool, timeout: Duration) -> Result<Ledger, NotInTime> {
        // Registered before the first look, so that no change falls between the two.
        let mut changes = self.shared.changes();
        let held = async {
            loop {
                let held = self.shared.read(|state| condition(&state.ledger).then(|| state.ledger.clone()));
                if let Some(ledger) = held {
                    return ledger;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(timeout, held).await.map_err(|_| NotInTime(Box::new(self.ledger())))
    }

    /// Moves the clock ahead.
    pub fn advance(&self, by: Duration) {
        self.shared.change(|state| state.clock.advance(by));
    }

    /// Lets everything that happened so far, keys included, have happened that much earlier; the clock stays.
    pub fn age(&self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        self.shared.change(|state| {
            state.ledger.age(by);
            state.keys.age(by);
        });
    }

    /// Sets what a connected account, or the [`PLATFORM`](crate::PLATFORM), has, in minor units; `None` for as much as is asked of it.
    pub fn set_balance(&self, account: &str, amount: Option<i64>) {
        self.shared.change(|state| state.ledger.set_balance(account, amount));
    }

    /// Limits the requests per second, reads included; `None` for no limit. The bucket begins full.
    pub fn set_rate_limit(&self, per_second: Option<u32>) {
        self.shared.change(|state| {
            let now = state.clock.now();
            state.limiter = per_second.map(|per_second| Limiter::new(per_second, now));
        });
    }

    /// Accepts these API keys and no others.
    pub fn allow_keys<'a>(&self, keys: impl IntoIterator<Item = &'a str>) {
        let keys = keys.into_iter().map(str::to_owned).collect();
        self.shared.change(|state| state.api_keys = Some(keys));
    }

    /// Lists show a transfer or a reversal only when it is this old, by the simulator's clock. What is asked for by its id
    /// is never late.
    pub fn set_list_lag(&self, lag: Duration) {
        self.shared.change(|state| state.list_lag = lag);
    }

    /// Somebody else reverses a transfer, in the dashboard, say: `amount` of it, or all that is left.
    pub fn reverse_from_elsewhere(&self, transfer: &str, amount: Option<i64>) {
        self.shared.change(|state| {
            operations::reverse_from_elsewhere(state, transfer, amount, None);
        });
    }

    /// Stripe itself reverses `amount` of a transfer, for a refund (`re_…`) that was made with `reverse_transfer`.
    pub fn reverse_for_refund(&self, transfer: &str, amount: i64, refund: &str) {
        let refund = Some(refund.to_owned());
        self.shared.change(|state| {
            operations::reverse_from_elsewhere(state, transfer, Some(amount), refund);
        });
    }

    /// Ends a pending reversal as `succeeded`, `failed` or `canceled`.
    ///
    /// # Panics
    /// When there is no pending reversal of that id, or the status is another.
    pub fn settle(&self, reversal: &str, status: &str) {
        let settled = self.shared.change(|state| operations::settle(state, reversal, status));
        assert_eq!(settled, Ok(()));
    }

    /// Lets that share of all requests (0 to 1) meet a fault, drawn at random from the seed, until the faults are
    /// cleared. Only faults that a correct client gets over are drawn.
    ///
    /// # Panics
    /// When the share is not from 0 to 1.
    pub fn random_faults(&self, seed: u64, share: f64) {
        let added =
            self.shared.change(|state| RandomFaults::new(seed, share).map(|random| state.faults.at_random(random)));
        assert_eq!(added, Ok(()));
    }

    /// Forgets transfers, requests, keys and faults; keeps the clock and the settings.
    pub fn reset(&self) {
        self.shared.change(State::reset);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What was waited for did not happen in time; shows the requests so far.
#[derive(Debug)]
pub struct NotInTime(Box<Ledger>);

impl fmt::Display for NotInTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "it did not happen in time; {} requests came:", self.0.requests.len())?;
        for request in &self.0.requests {
            let (method, path, status) = (&request.method, &request.path, request.status);
            writeln!(
                formatter,
                "{method} {path} -> {status:?}, key {:?}, fault {:?}",
                request.idempotency_key, request.fault
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for NotInTime {}
