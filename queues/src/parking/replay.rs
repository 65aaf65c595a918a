//! Replays or discards parked jobs as a judge decides. A replayed job is acknowledged only after its copy is confirmed.

use super::{Failure, ParkedJob, Selection, Verdict, taking::Taking};
use crate::{Broker, Publisher, Topology, acknowledge::Acknowledgement, headers, publisher::Outgoing};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream::FuturesOrdered};
use lapin::message::Delivery;
use std::{collections::HashMap, time::Duration};
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

/// How many copies await their confirm.
const MAX_IN_FLIGHT: usize = 200;
/// How long messages are held before they are given back and taken again: well below the broker's consumer timeout of 30
/// minutes, which closes the channel. Shorter in tests.
pub(super) const ROUND: Duration = Duration::from_secs(10 * 60);

/// How many copies there are of each parked job: they share an id but not the time of parking.
type Counts = HashMap<(String, Option<DateTime<Utc>>), u32>;

pub(super) struct Replay<'a, J> {
    publisher: &'a Publisher,
    topology: &'a Topology,
    selection: &'a Selection,
    interval: Duration,
    round: Duration,
    judge: J,
    /// When the next job may go.
    next_at: Instant,
    judged: usize,
    /// Judged jobs that stay: they come again in the next round.
    kept: Counts,
    done: Vec<String>,
}

impl<'a, J: AsyncFnMut(&ParkedJob) -> Verdict> Replay<'a, J> {
    pub(super) fn new(
        publisher: &'a Publisher,
        topology: &'a Topology,
        selection: &'a Selection,
        interval: Duration,
        round: Duration,
        judge: J,
    ) -> Self {
        let (next_at, kept, done) = (Instant::now(), HashMap::new(), Vec::new());
        Self { publisher, topology, selection, interval, round, judge, next_at, judged: 0, kept, done }
    }

    pub(super) fn into_done(self) -> Vec<String> {
        self.done
    }

    pub(super) async fn run(&mut self, broker: &Broker) -> Result<(), Failure> {
        let mut taking = Taking::open(broker, self.topology, self.selection.reach()).await?;
        let ended = self.rounds(&mut taking).await;
        taking.end(ended.map(|()| self.judged >= self.selection.limit())).await
    }

    async fn rounds(&mut self, taking: &mut Taking) -> Result<(), String> {
        while !self.one_round(taking).await? {
            taking.begin_again().await?;
        }
        Ok(())
    }

    /// True when everything has been looked at or the limit is reached; false when the round's time is over.
    async fn one_round(&mut self, taking: &mut Taking) -> Result<bool, String> {
        let mut departures = FuturesOrdered::new();
        let round_ends = Instant::now() + self.round;
        let mut known = self.kept.clone();
        let mut failure = None;
        let (mut all_seen, mut more) = (false, true);
        while more || !departures.is_empty() {
            if more && self.judged >= self.selection.limit() {
                (all_seen, more) = (true, false);
                continue;
            }
            let next_at = self.next_at;
            let due = next_at <= Instant::now();
            select! {
                biased;
                Some(copied) = departures.next() => match copied {
                    Ok(id) => {
                        self.done.push(id);
                        taking.gone();
                    }
                    Err(reason) => (failure, more) = (Some(reason), false),
                },
                () = sleep_until(round_ends), if more => more = false,
                () = sleep_until(next_at), if more && !due => {}
                taken = taking.next(), if more && due && departures.len() < MAX_IN_FLIGHT => match taken {
                    Ok(Some(message)) => {
                        if let Some(departure) = self.departure(message, &mut known).await {
                            self.next_at = Instant::now() + self.interval;
                            departures.push_back(departure);
                        }
                    }
                    Ok(None) => (all_seen, more) = (true, false),
                    Err(reason) => (failure, more) = (Some(reason), false),
                },
            }
        }
        failure.map_or(Ok(all_seen), Err)
    }

    /// Judges one job, unless an earlier round did; if it is to leave, the future resolves with its id once it has left.
    async fn departure(
        &mut self,
        message: Delivery,
        known: &mut Counts,
    ) -> Option<impl Future<Output = Result<String, String>> + use<J>> {
        let Delivery { properties, data, acker, .. } = message;
        let job = ParkedJob::read(&properties, data);
        if !self.selection.matches(&job) {
            return None;
        }
        let key = (job.id.clone(), job.parked_at);
        if let Some(count @ 1..) = known.get_mut(&key) {
            *count -= 1;
            return None;
        }
        self.judged += 1;
        let outgoing = match (self.judge)(&job).await {
            Verdict::Keep => {
                *self.kept.entry(key).or_default() += 1;
                return None;
            }
            Verdict::Discard { reason } => {
                // First, so no job disappears without a log line.
                warn!(id = job.id, kind = job.kind, parked_reason = job.reason, reason, "discarding a parked job");
                None
            }
            Verdict::Replay => {
                let delivery = headers::delivery(&properties, false);
                Some(Outgoing {
                    id: delivery.message_id.clone(),
                    exchange: "".into(),
                    routing_key: self.topology.work_queue_of(delivery.key.as_deref().unwrap_or(&job.id)).into(),
                    payload: job.payload,
                    properties: headers::of_replay(&properties, &delivery),
                })
            }
        };
        let publisher = self.publisher.clone();
        Some(async move {
            if let Some(outgoing) = outgoing {
                publisher.send(outgoing).await.map_err(|error| error.to_string())?;
                info!(id = job.id, kind = job.kind, parked_reason = job.reason, "parked job replayed");
            }
            let acked = Acknowledgement::new(acker).ack().await;
            acked.map_err(|_| "the connection was lost".to_owned())?;
            Ok(job.id)
        })
    }
}
