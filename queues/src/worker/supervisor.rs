//! From one connection to the next, until the worker is asked to stop; then the drain. Made by
//! [`Worker::run`](super::Worker::run). It looks at no message.

use super::{
    job::Desk,
    session::{Ended, Session},
};
use crate::{BrokerError, ConnectionState, reconnect::Reconnect};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

pub(super) struct Supervisor<'a> {
    pub(super) desk: Arc<Desk>,
    pub(super) prefetch: u16,
    pub(super) concurrency: usize,
    /// Outlives the sessions: a job whose connection is lost still runs, and holds its place.
    pub(super) jobs: JoinSet<()>,
    pub(super) state: &'a watch::Sender<ConnectionState>,
    pub(super) paused: watch::Receiver<bool>,
    pub(super) reconnect: Reconnect,
}

impl Supervisor<'_> {
    /// Works until the shutdown, which comes with the open session if there is one; or until the topology turns out to
    /// be impossible.
    pub(super) async fn work(
        &mut self,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<Option<Session>, BrokerError> {
        loop {
            let since = Instant::now();
            let opened = select! {
                biased;
                () = &mut shutdown => return Ok(None),
                opened = Session::open(&self.desk.broker, &self.desk.topology, self.prefetch, self.paused.clone()) => opened,
            };
            let reason = match opened {
                Ok(mut session) => {
                    info!(queue = self.desk.topology.queue(), prefetch = self.prefetch, "consuming");
                    self.state.send_replace(ConnectionState::Connected);
                    let ended = session.work(shutdown.as_mut(), &self.desk, &mut self.jobs, self.concurrency).await;
                    match ended {
                        Ended::Shutdown => return Ok(Some(session)),
                        Ended::Lost(reason) => {
                            session.close().await;
                            reason
                        }
                    }
                }
                Err(error @ BrokerError::Mismatch { .. }) => return Err(error),
                Err(error) => error.to_string(),
            };
            warn!(queue = self.desk.topology.queue(), reason, "not consuming; will try again");
            self.state.send_modify(|state| *state = state.after_failure(reason));
            select! {
                biased;
                () = &mut shutdown => return Ok(None),
                () = sleep(self.reconnect.delay_after(since.elapsed())) => {}
            }
        }
    }

    /// The connection is closed last: until then the running jobs can be acknowledged.
    pub(super) async fn stop(&mut self, mut session: Option<Session>, drain_timeout: Duration) {
        info!(queue = self.desk.topology.queue(), running = self.jobs.len(), "stopping");
        let drained = async {
            if let Some(session) = &mut session {
                // An error means that the connection is lost: the broker takes everything back by itself.
                let _ = session.give_back_waiting().await;
            }
            while self.jobs.join_next().await.is_some() {}
        };
        if timeout(drain_timeout, drained).await.is_err() {
            warn!(cut_off = self.jobs.len(), "jobs outlasted the drain timeout; their messages go back to the queue");
            self.jobs.shutdown().await;
        }
        if let Some(session) = session {
            session.close().await;
        }
    }
}
