//! Reconnects a worker until it is asked to stop, then drains it. It looks at no message.

use super::{
    admission::Admission,
    job::{Desk, Open},
    session::{Ended, EndedJob, Session},
};
use crate::{
    BrokerError, ConnectionState,
    connection::{Reconnect, Refusals},
    parking::rescue,
};
use futures_util::future::join_all;
use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// Half of the broker's consumer timeout (`consumer_timeout`, 30 minutes), after which it closes the channel and delivers
/// again what was held on it. A message waits for its turn at most so long, and has as long from there.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(15 * 60);

pub(super) struct Supervisor<'a> {
    pub(super) desk: Arc<Desk>,
    pub(super) prefetch: u16,
    /// Outlives the sessions: a job whose connection is lost still runs and keeps its slot.
    pub(super) jobs: JoinSet<EndedJob>,
    /// Set where keys are limited, or their jobs run in order. Outlives the sessions, as the jobs do.
    pub(super) admission: Option<Admission<Open>>,
    pub(super) state: &'a watch::Sender<ConnectionState>,
    pub(super) paused: watch::Receiver<bool>,
    pub(super) reconnect: Reconnect,
    pub(super) refusals: Refusals,
}

impl Supervisor<'_> {
    /// Works until the shutdown, and returns the session if one is open; or until the topology turns out to be impossible.
    pub(super) async fn work(
        &mut self,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<Option<Session>, BrokerError> {
        loop {
            let since = Instant::now();
            let prefetch = self.prefetch;
            let opened = select! {
                biased;
                () = &mut shutdown => return Ok(None),
                opened = Session::open(&self.desk.worker.broker, &self.desk.worker.topology, prefetch, self.paused.clone()) => opened,
            };
            let reason = match opened {
                Ok(mut session) => {
                    info!(queue = self.desk.worker.topology.queue(), prefetch, "consuming");
                    self.refusals.end();
                    self.state.send_replace(ConnectionState::Connected);
                    let ended = session.work(shutdown.as_mut(), &self.desk, &mut self.jobs, &mut self.admission).await;
                    match ended {
                        Ended::Shutdown => return Ok(Some(session)),
                        Ended::Lost(reason) => {
                            self.forget_messages().await;
                            session.close().await;
                            reason
                        }
                        Ended::Unreadable(reason) => {
                            self.forget_messages().await;
                            session.close().await;
                            self.rescue().await;
                            reason
                        }
                    }
                }
                Err(error @ BrokerError::Mismatch { .. }) => return Err(error),
                Err(error) if self.refusals.are_final(&error, self.desk.worker.broker.refusal_timeout()) => {
                    return Err(error);
                }
                Err(error) => error.to_string(),
            };
            warn!(queue = self.desk.worker.topology.queue(), reason, "not consuming; will try again");
            self.state.send_modify(|state| *state = state.after_failure(reason));
            select! {
                biased;
                () = &mut shutdown => return Ok(None),
                () = sleep(self.reconnect.delay_after(since.elapsed())) => {}
            }
        }
    }

    /// The broker delivers what was held anew. Where the order counts, perhaps to another worker: then no job runs on here.
    async fn forget_messages(&mut self) {
        let in_order = self.desk.worker.topology.is_partitioned();
        if in_order {
            self.jobs.shutdown().await;
        }
        if let Some(admission) = &mut self.admission {
            admission.clear(in_order);
        }
    }

    /// At once, or the neighbors of an unreadable message would be delivered again and again until the broker parks them.
    async fn rescue(&mut self) {
        let Desk { worker, publisher, .. } = &*self.desk;
        let parked = worker.topology.parked_queue();
        let single_active = worker.topology.is_partitioned();
        let depth = u32::from(self.prefetch).saturating_mul(if single_active { 1 } else { 2 });
        let queues = worker.topology.work_queues();
        let rescues =
            queues.iter().map(|queue| rescue(&worker.broker, publisher, (queue, &parked), depth, single_active));
        for (queue, rescued) in queues.iter().zip(join_all(rescues).await) {
            match rescued {
                Ok(_) => self.reconnect = Reconnect::new(),
                Err(reason) => {
                    warn!(queue, reason, "an unreadable message could not be parked; remove it with the management UI");
                }
            }
        }
    }

    /// Closes the connection last: until then running jobs can be acknowledged.
    pub(super) async fn stop(&mut self, mut session: Option<Session>, drain_timeout: Duration) {
        info!(queue = self.desk.worker.topology.queue(), running = self.jobs.len(), "stopping");
        let drained = async {
            if let Some(session) = &mut session {
                // On an error the connection is lost, and the broker takes everything back.
                let _ = session.give_back_waiting(&mut self.admission).await;
            }
            while self.jobs.join_next().await.is_some() {}
        };
        if timeout(drain_timeout, drained).await.is_err() {
            warn!(cut_off = self.jobs.len(), "jobs outlasted the drain timeout; their messages go back to the queue");
            self.jobs.shutdown().await;
        }
        if let Some(mut session) = session {
            session.settle().await;
            session.close().await;
        }
    }
}

/// Shows the state of a worker's two connections as one, as long as it works.
pub(super) async fn show(
    state: &watch::Sender<ConnectionState>,
    mut consuming: watch::Receiver<ConnectionState>,
    mut publishing: watch::Receiver<ConnectionState>,
) -> Infallible {
    loop {
        let blocked = *publishing.borrow_and_update() == ConnectionState::Blocked;
        let seen = consuming.borrow_and_update().clone();
        let seen = if blocked && seen.is_connected() { ConnectionState::Blocked } else { seen };
        state.send_if_modified(|state| {
            let changed = *state != seen;
            *state = seen;
            changed
        });
        select! {
            Ok(()) = consuming.changed() => {}
            Ok(()) = publishing.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// As much of `wanted` as `concurrency` jobs at a time finish within [`LONGEST_HOLD`], should each run into its timeout; but
/// no fewer than can run at once.
pub(super) fn capped_prefetch(wanted: u16, concurrency: usize, job_timeout: Duration) -> u16 {
    let rounds = LONGEST_HOLD.as_nanos().checked_div(job_timeout.as_nanos()).unwrap_or(u128::MAX).max(1);
    let in_time = rounds.saturating_mul(concurrency as u128);
    wanted.min(u16::try_from(in_time).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_prefetch_that_is_worked_off_in_time_stays_as_it_is() {
        assert_eq!(capped_prefetch(100, 10, MINUTE), 100);
        assert_eq!(capped_prefetch(150, 10, MINUTE), 150);
        assert_eq!(capped_prefetch(u16::MAX, 1, Duration::ZERO), u16::MAX);
    }

    #[test]
    fn a_prefetch_that_would_be_held_too_long_is_cut_down_but_not_below_what_runs_at_once() {
        assert_eq!(capped_prefetch(100, 1, Duration::from_secs(20)), 45);
        assert_eq!(capped_prefetch(151, 10, MINUTE), 150);
        assert_eq!(capped_prefetch(100, 3, 7 * MINUTE), 6);
        assert_eq!(capped_prefetch(100, 3, 60 * MINUTE), 3);
        assert_eq!(capped_prefetch(2, 3, 60 * MINUTE), 2);
    }

    proptest! {
        #[test]
        fn the_last_of_the_prefetched_jobs_ends_in_time(
            wanted in 1..u16::MAX, concurrency in 1..2000_usize, job_timeout in any::<Duration>(),
        ) {
            let capped = capped_prefetch(wanted, concurrency, job_timeout);
            let rounds = u32::try_from(usize::from(capped).div_ceil(concurrency)).unwrap();
            prop_assert!((1..=wanted).contains(&capped));
            prop_assert!(rounds == 1 || job_timeout.saturating_mul(rounds) <= LONGEST_HOLD);
            prop_assert!(usize::from(capped) >= concurrency.min(wanted.into()));
        }
    }
}
