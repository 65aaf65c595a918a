//! Keeps this process's row in the ledger fresh, so that every other process, page and command knows that it is alive and how
//! it is; and hears there whether an operator asks for a probe of Stripe.

use std::sync::Arc;
use std::time::Duration;

use queues::WorkerControl;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Role;
use crate::ledger::{BreakerState, Ledger, Process, ProcessRole, now};
use crate::worker::{CircuitBreaker, CircuitState, Limiter};

/// Processes count as dead after several of these.
const BEAT: Duration = Duration::from_secs(3);
/// While Stripe can't be used: an operator who asks for a probe waits no longer.
const BEAT_WHILE_OPEN: Duration = Duration::from_secs(1);

/// What there is to tell of this process.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) ledger: Ledger,
    pub(super) role: Role,
    pub(super) workers: Option<Working>,
}

/// What calls Stripe.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) consumers: Vec<WorkerControl>,
    pub(super) breaker: Arc<CircuitBreaker>,
    pub(super) limiter: Arc<Limiter>,
}

/// The machine's name.
pub fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    name.or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty())
}

impl Presence {
    /// Until `stop`; then the row is deleted.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let fixed = Process {
            id: Uuid::now_v7(),
            role: match self.role {
                Role::All => ProcessRole::Run,
                Role::Serve => ProcessRole::Serve,
                Role::Worker => ProcessRole::Worker,
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host().unwrap_or_else(|| "unknown".to_owned()),
            pid: std::process::id().into(),
            breaker: None,
            outage_since: None,
            outage_reason: None,
            outage_about: None,
            next_probe_at: None,
            calls_per_second: None,
            consumers: 0,
            connected: 0,
            jobs_running: 0,
            last_delivery_at: None,
            webhooks_refused: 0,
            webhook_refused_at: None,
            started_at: now(),
            seen_at: now(),
        };
        let id = fixed.id;
        self.beat(fixed, &stop).await;
        if let Err(error) = self.ledger.say_goodbye(id).await {
            tracing::debug!(%error, "the row of this process stays for a while");
        }
    }

    /// A beat is not given up halfway: what the database makes of it later would bring the row back after the goodbye.
    async fn beat(&self, fixed: Process, stop: &CancellationToken) {
        let mut breaker = self.workers.as_ref().map(|workers| workers.breaker.state());
        let (mut heeded, mut fails) = (None, false);
        loop {
            let process = match &self.workers {
                Some(workers) => workers.tell(fixed.clone()),
                None => fixed.clone(),
            };
            let is_open = process.breaker.is_some_and(|state| state != BreakerState::Closed);
            match self.ledger.beat(&process).await {
                Ok(asked) => {
                    fails = false;
                    if let (true, Some(workers)) = (asked > heeded, &self.workers) {
                        workers.breaker.hurry();
                    }
                    heeded = asked;
                }
                Err(error) if !fails => {
                    fails = true;
                    tracing::warn!(%error, "the ledger was not told that this process is alive; trying on");
                }
                Err(_) => {}
            }
            let changed = async {
                match &mut breaker {
                    Some(state) => drop(state.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed => {}
                () = tokio::time::sleep(if is_open { BEAT_WHILE_OPEN } else { BEAT }) => {}
            }
        }
    }
}

impl Working {
    fn tell(&self, fixed: Process) -> Process {
        let state = self.breaker.state().borrow().clone();
        let (breaker, outage) = match state {
            CircuitState::Closed => (BreakerState::Closed, None),
            CircuitState::HalfOpen(outage) => (BreakerState::HalfOpen, Some(outage)),
            CircuitState::Open(outage) => (BreakerState::Open, Some(outage)),
        };
        let health: Vec<_> = self.consumers.iter().map(WorkerControl::health).collect();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Process {
            breaker: Some(breaker),
            outage_since: outage.as_ref().map(|outage| outage.since),
            outage_reason: outage.as_ref().map(|outage| outage.reason()),
            next_probe_at: outage.as_ref().and_then(|outage| outage.next_probe_at),
            outage_about: outage.map(|outage| outage.about),
            calls_per_second: Some(self.limiter.per_second()),
            consumers: number(health.len()),
            connected: number(health.iter().filter(|of| of.connection.is_connected()).count()),
            jobs_running: number(health.iter().map(|of| of.running).sum()),
            last_delivery_at: health.iter().filter_map(|of| of.last_delivery_at).max(),
            ..fixed
        }
    }
}
