//! All that the simulator knows, behind one lock that is never held across an await, and the bell that rings at each
//! change.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::events::Events;
use crate::faults::Faults;
use crate::idempotency::IdempotencyKeys;
use crate::ledger::Ledger;
use crate::limiter::Limiter;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) keys: IdempotencyKeys,
    /// The transfers that a slow request is reversing: who comes meanwhile is refused.
    pub(crate) locked: BTreeSet<String>,
    pub(crate) faults: Faults,
    pub(crate) limiter: Option<Limiter>,
    /// None: any key that looks like one of a sandbox.
    pub(crate) api_keys: Option<BTreeSet<String>>,
    /// How long a new transfer or reversal is missing from lists.
    pub(crate) list_lag: Duration,
    /// Whether a reversal without metadata shows `null` instead of an empty object.
    pub(crate) null_metadata: bool,
    /// How many requests the log keeps, at least; 0 for no log.
    pub(crate) log_limit: usize,
    pub(crate) events: Events,
}

impl Default for State {
    fn default() -> State {
        State {
            clock: Clock::default(),
            ledger: Ledger::default(),
            keys: IdempotencyKeys::default(),
            locked: BTreeSet::new(),
            faults: Faults::default(),
            limiter: None,
            api_keys: None,
            list_lag: Duration::ZERO,
            null_metadata: false,
            log_limit: usize::MAX,
            events: Events::default(),
        }
    }
}

impl State {
    /// Whether lists show what was created then.
    pub(crate) fn shows_in_lists(&self, created: DateTime<Utc>) -> bool {
        self.list_lag.is_zero() || created <= self.clock.now() - self.list_lag
    }

    /// Forgets what happened and which faults wait; keeps the clock and the settings.
    pub(crate) fn reset(&mut self) {
        self.ledger = Ledger::default();
        self.keys = IdempotencyKeys::default();
        self.events.clear();
        self.faults.clear();
    }
}

/// The state as routes and tests share it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(state: State) -> Shared {
        Shared { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        value
    }

    /// A receiver that wakes at every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
