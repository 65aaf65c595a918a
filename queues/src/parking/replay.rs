//! From the parking queue back to the work queue (copy, confirm, acknowledge) or away for good, as a judge says of each
//! job. Made by [`Parking`](super::Parking). A job that goes back is never acknowledged before its copy is known to be
//! safe.

use super::{ParkedJob, ParkingError, Selection, Verdict, interrupted, taking::Taking};
use crate::{Broker, Publisher, Topology, acknowledge::Acknowledgement, headers, publisher::Outgoing};
use futures_util::{StreamExt, stream::FuturesOrdered};
use lapin::message::Delivery;
use std::time::Duration;
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tracing::info;

/// How many copies await their confirm.
const MAX_IN_FLIGHT: usize = 200;
/// For how long messages are held before they are given back and taken anew: well below the broker's consumer timeout
/// of 30 minutes, which would close the channel.
const ROUND: Duration = Duration::from_secs(10 * 60);

pub(super) struct Replay<'a, J> {
    publisher: &'a Publisher,
    topology: &'a Topology,
    selection: &'a Selection,
    interval: Duration,
    judge: J,
    done: Vec<String>,
}

impl<'a, J: AsyncFnMut(&ParkedJob) -> Verdict> Replay<'a, J> {
    pub(super) fn new(
        publisher: &'a Publisher,
        topology: &'a Topology,
        selection: &'a Selection,
        interval: Duration,
        judge: J,
    ) -> Self {
        Self { publisher, topology, selection, interval, judge, done: Vec::new() }
    }

    pub(super) fn into_done(self) -> Vec<String> {
        self.done
    }

    pub(super) async fn run(&mut self, broker: &Broker) -> Result<(), ParkingError> {
        let mut reach = self.selection.reach();
        loop {
            let mut taking = Taking::open(broker, self.topology, reach).await?;
            let before = (taking.left(), self.done.len());
            let ended = self.round(&mut taking).await;
            let closed = taking.close().await;
            let all_seen = ended.and_then(|all_seen| closed.map(|()| all_seen));
            if all_seen.map_err(|reason| interrupted(Vec::new(), reason))? {
                return Ok(());
            }
            // Only what was there in the beginning: what is left of it stands in front of what was parked since.
            reach = before.0.saturating_sub(u32::try_from(self.done.len() - before.1).unwrap_or(u32::MAX));
        }
    }

    /// Whether everything has been looked at, or the limit is reached; false when the round's time is over.
    async fn round(&mut self, taking: &mut Taking) -> Result<bool, String> {
        let mut ways = FuturesOrdered::new();
        let round_ends = Instant::now() + ROUND;
        let mut next_at = Instant::now();
        let mut failure = None;
        let (mut all_seen, mut more) = (false, true);
        while more || !ways.is_empty() {
            if more && self.done.len() + ways.len() >= self.selection.limit() {
                (all_seen, more) = (true, false);
                continue;
            }
            let due = next_at <= Instant::now();
            select! {
                biased;
                Some(copied) = ways.next() => match copied {
                    Ok(id) => self.done.push(id),
                    Err(reason) => (failure, more) = (Some(reason), false),
                },
                () = sleep_until(round_ends), if more => more = false,
                () = sleep_until(next_at), if more && !due => {}
                taken = taking.next(), if more && due && ways.len() < MAX_IN_FLIGHT => match taken {
                    Ok(Some(message)) => {
                        if let Some(way) = self.way(message).await {
                            next_at = Instant::now() + self.interval;
                            ways.push_back(way);
                        }
                    }
                    Ok(None) => (all_seen, more) = (true, false),
                    Err(reason) => (failure, more) = (Some(reason), false),
                },
            }
        }
        failure.map_or(Ok(all_seen), Err)
    }

    /// The way of one job, if it is selected and does not stay; resolves with its id once it has left the parking queue.
    async fn way(&mut self, message: Delivery) -> Option<impl Future<Output = Result<String, String>> + use<J>> {
        let Delivery { properties, data, acker, .. } = message;
        let job = ParkedJob::new(&properties, data);
        if !self.selection.matches(&job) {
            return None;
        }
        let outgoing = match (self.judge)(&job).await {
            Verdict::Keep => return None,
            Verdict::Discard { reason } => {
                // Before it is gone, so that no job can go without a word.
                info!(id = job.id, kind = job.kind, parked_reason = job.reason, reason, "discarding a parked job");
                None
            }
            Verdict::Replay => {
                let delivery = headers::delivery(&properties, false);
                Some(Outgoing {
                    id: delivery.message_id.clone(),
                    exchange: "".into(),
                    routing_key: self.topology.queue().into(),
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
