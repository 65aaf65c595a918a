//! One message from its delivery to its settlement. The order is the guarantee: a message is acknowledged only when its
//! work is done or its copy is confirmed, so a crash in between makes duplicates and no losses.

use super::{Worker, settle::Settlement, supervisor::LONGEST_HOLD};
use crate::{
    Delivery, Outcome, PublishError, Publisher,
    acknowledge::Unsettled,
    connection::Reconnect,
    headers::{self, Copy},
    measure::{InFlightGuard, WorkerMetrics},
    publisher::Outgoing,
};
use chrono::Utc;
use futures_util::FutureExt;
use lapin::BasicProperties;
use std::{any::Any, mem, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, info, info_span, warn};

/// What all jobs of a worker share.
pub(super) struct Desk {
    pub(super) worker: Worker,
    pub(super) publisher: Publisher,
    pub(super) metrics: WorkerMetrics,
}

/// Called with the id of each job that is done or parked.
pub(super) type OnSettled = Box<dyn Fn(&str) + Send + Sync>;

/// A message without its acknowledgement.
pub(super) struct Received {
    pub(super) properties: BasicProperties,
    pub(super) redelivered: bool,
    pub(super) payload: Vec<u8>,
}

impl Desk {
    /// The message is boxed: it is large, and this future is moved.
    pub(super) async fn process(self: Arc<Self>, mut message: Box<Received>, unsettled: Unsettled) {
        let delivery = headers::delivery(&message.properties, message.redelivered);
        let span = info_span!("job", id = delivery.message_id, kind = delivery.kind, attempt = delivery.attempt);
        let metrics = self.metrics.of(&delivery.kind);
        metrics.delivered.increment(1);
        let _in_flight = InFlightGuard::new(&metrics.in_flight);
        async {
            let started = Instant::now();
            let outcome = self.perform(&delivery, &message.payload).await;
            let elapsed = started.elapsed();
            metrics.handler_seconds.record(elapsed);
            let elapsed_ms = elapsed.as_millis();
            // Futures are boxed: most jobs are done and need no room for them.
            match Settlement::of(outcome, delivery.attempt, &self.worker.policy, &self.worker.topology) {
                Settlement::Ack => {
                    info!(elapsed_ms, "job done");
                    metrics.count_done(headers::first_published_at(&message.properties));
                    unsettled.ack();
                    self.tell_settled(&delivery);
                }
                Settlement::GiveBack => {
                    info!(elapsed_ms, "job given back");
                    Box::pin(give_back(unsettled)).await;
                }
                Settlement::Copy(copy) => {
                    warn!(elapsed_ms, to = copy.queue, reason = copy.reason, "job put off or parked");
                    let outgoing = self.copy(&copy, &delivery, &message.properties, mem::take(&mut message.payload));
                    if Box::pin(self.publish_copy(outgoing, &unsettled, started + LONGEST_HOLD)).await {
                        unsettled.ack();
                        if copy.parked_reason.is_some() {
                            metrics.parked.increment(1);
                            self.tell_settled(&delivery);
                        } else {
                            metrics.retried.increment(1);
                        }
                    } else {
                        Box::pin(give_back(unsettled)).await;
                    }
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// Runs the handler; there is an outcome whatever it does.
    async fn perform(&self, delivery: &Delivery, payload: &[u8]) -> Outcome {
        let Some(handler) = self.worker.handlers.get(delivery.kind.as_str()) else {
            return Outcome::Park { reason: format!("unknown job kind {:?}", delivery.kind) };
        };
        let run = async {
            match handler.start(payload, delivery.clone()) {
                Ok(running) => running.await,
                // serde's own text would quote the body.
                Err(error) => Outcome::Park {
                    reason: format!(
                        "undecodable payload: {:?} error at line {} column {}",
                        error.classify(),
                        error.line(),
                        error.column()
                    ),
                },
            }
        };
        match timeout(self.worker.job_timeout, AssertUnwindSafe(run).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Outcome::Retry { reason: format!("panicked: {}", panic_text(panic.as_ref())) },
            Err(_) => {
                Outcome::Retry { reason: format!("cut off after the job timeout of {:?}", self.worker.job_timeout) }
            }
        }
    }

    fn tell_settled(&self, delivery: &Delivery) {
        if let Some(tell) = &self.worker.on_settled {
            tell(&delivery.message_id);
        }
    }

    fn copy(&self, copy: &Copy, delivery: &Delivery, original: &BasicProperties, payload: Vec<u8>) -> Outgoing {
        let max_attempts = self.worker.policy.max_retries().saturating_add(1);
        let properties = headers::of_copy(original, delivery, copy, max_attempts, Utc::now());
        let (id, routing_key) = (delivery.message_id.clone(), copy.queue.as_str().into());
        Outgoing { id, exchange: "".into(), routing_key, payload, properties }
    }

    /// Whether the copy is confirmed. Retries as long as the message may be held: giving it back means doing the job again,
    /// and the broker counts it. Meanwhile the job keeps its slot, so jobs whose copies have nowhere to go do not pile up.
    async fn publish_copy(&self, outgoing: Outgoing, unsettled: &Unsettled, give_up: Instant) -> bool {
        let mut pauses = Reconnect::new();
        // Without a usable acknowledgement the broker delivers the original again: a copy would be a duplicate.
        while unsettled.is_usable() && Instant::now() < give_up {
            let Err(error) = self.publisher.send(outgoing.clone()).await else { return true };
            warn!(%error, "the job's copy is not safe yet");
            if matches!(error, PublishError::Returned { .. })
                && let Err(error) = self.worker.broker.declare(&self.worker.topology).await
            {
                // The queue was deleted and cannot be declared again yet.
                warn!(%error, "the topology could not be declared");
            }
            sleep(pauses.delay_after(Duration::ZERO)).await;
        }
        warn!("the job's copy could not be published in time; the job will run again");
        false
    }
}

async fn give_back(unsettled: Unsettled) {
    if unsettled.give_back().await.is_err() {
        warn!("the message could not be given back, its connection is lost; the broker will deliver it again");
    }
}

/// What `panic!` was given.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}
