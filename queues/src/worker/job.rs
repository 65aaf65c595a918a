//! One message from its delivery to its settlement. The order is the guarantee: a message is acknowledged only when its
//! work is done or its copy is confirmed, so a crash in between makes duplicates and no losses.

use super::{
    Worker,
    register::Registered,
    settle::{Case, Settlement, Why},
    supervisor::LONGEST_HOLD,
};
use crate::{
    Delivery, Outcome, PublishError, Publisher,
    acknowledge::Unsettled,
    connection::Reconnect,
    headers::{self, Copy, GIVEN_BACK, UNKNOWN_KIND},
    job::AnyHandler,
    measure::{InFlightGuard, JobMetrics, WorkerMetrics},
    publisher::Outgoing,
    topology::Address,
};
use chrono::{DateTime, Utc};
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
/// Called with each job that is parked, and the reason.
pub(super) type OnParked = Box<dyn Fn(&Delivery, &str) + Send + Sync>;

/// A message without its acknowledgement.
pub(super) struct Received {
    pub(super) properties: BasicProperties,
    pub(super) redelivered: bool,
    pub(super) payload: Vec<u8>,
    /// The number of the queue that it came from.
    pub(super) intake: usize,
    pub(super) arrived_at: Instant,
    /// Its key has had its share: the job comes again after this delay.
    pub(super) not_now: Option<Duration>,
    /// Set while it waits here for its next attempt, because later jobs of its key must not overtake it.
    pub(super) held: Option<Held>,
}

/// What the headers of a copy would say.
pub(super) struct Held {
    attempt: u32,
    counter: Option<(&'static str, u32)>,
    unknown_since: Option<DateTime<Utc>>,
}

impl Received {
    /// One of our counters; 0 when missing.
    fn count(&self, name: &str) -> u32 {
        match self.held.as_ref().and_then(|held| held.counter) {
            Some((counted, count)) if counted == name => count,
            _ => headers::count(&self.properties, name),
        }
    }

    fn unknown_since(&self) -> Option<DateTime<Utc>> {
        let held = self.held.as_ref().and_then(|held| held.unknown_since);
        held.or_else(|| headers::unknown_since(&self.properties))
    }
}

/// A message that is to be settled.
pub(super) struct Open {
    pub(super) received: Box<Received>,
    pub(super) unsettled: Unsettled,
}

impl Desk {
    /// Settles the message, or returns it with the delay after which it is to be processed again. It is boxed: it is large, and
    /// this future is moved.
    pub(super) async fn process(self: Arc<Self>, Open { received, unsettled }: Open) -> Option<(Open, Duration)> {
        let mut message = received;
        let mut delivery = headers::delivery(&message.properties, message.redelivered);
        let max_attempts = self.worker.policy_of(&delivery.kind).max_retries().saturating_add(1);
        delivery.max_attempts = Some(max_attempts);
        if !headers::is_ours(&message.properties) {
            delivery.attempt = delivery.attempt.min(max_attempts);
        }
        if let Some(held) = &message.held {
            delivery.attempt = held.attempt;
        }
        let span = info_span!("job", id = delivery.message_id, kind = delivery.kind, attempt = delivery.attempt);
        let metrics = self.metrics.of(&delivery.kind);
        metrics.delivered.increment(1);
        let _running = self.worker.control.activity.start();
        let _in_flight = InFlightGuard::new(&metrics.in_flight);
        async {
            let started = Instant::now();
            let settlement = self.decide(&message, &delivery, metrics).await;
            let elapsed_ms = started.elapsed().as_millis();
            // Futures are boxed: most jobs are done and need no room for them.
            match settlement {
                Settlement::Ack => {
                    info!(elapsed_ms, "job done");
                    metrics.count_done(delivery.first_published_at);
                    unsettled.ack();
                    self.tell_settled(&delivery);
                }
                Settlement::GiveBack => {
                    info!(elapsed_ms, "job given back");
                    metrics.given_back.increment(1);
                    Box::pin(give_back(unsettled)).await;
                }
                Settlement::Copy(why, copy) => {
                    match why {
                        Why::Retried => {
                            warn!(elapsed_ms, to = copy.to.routing_key, reason = copy.reason, "job failed; retrying")
                        }
                        Why::Snoozed | Why::Early => {
                            info!(elapsed_ms, to = copy.to.routing_key, reason = copy.reason, "job delayed")
                        }
                        Why::Parked => warn!(elapsed_ms, to = copy.to.routing_key, reason = copy.reason, "job parked"),
                    }
                    if self.worker.holds(why, &delivery) {
                        metrics.count_delayed(why == Why::Retried);
                        let Copy { attempt, counter, unknown_since, .. } = copy;
                        message.held = Some(Held { attempt, counter, unknown_since });
                        return Some((Open { received: message, unsettled }, copy.delay.min(LONGEST_HOLD)));
                    }
                    let outgoing = self.copy(&copy, &delivery, &message.properties, mem::take(&mut message.payload));
                    let give_up = started + LONGEST_HOLD;
                    if let Some(parked_for) = Box::pin(self.publish_copy(outgoing, &unsettled, give_up)).await {
                        unsettled.ack();
                        match (why, parked_for.or(copy.parked_reason)) {
                            (_, Some(reason)) => {
                                metrics.parked.increment(1);
                                self.tell_settled(&delivery);
                                if let Some(tell) = &self.worker.on_parked {
                                    tell(&delivery, &reason);
                                }
                            }
                            (why, None) => metrics.count_delayed(matches!(why, Why::Retried | Why::Parked)),
                        }
                    } else {
                        Box::pin(give_back(unsettled)).await;
                    }
                }
            }
            None
        }
        .instrument(span)
        .await
    }

    /// Runs the handler, unless the message says that it must not run now.
    async fn decide(&self, message: &Received, delivery: &Delivery, metrics: &JobMetrics) -> Settlement {
        let Worker { topology, handlers, .. } = &self.worker;
        let policy = self.worker.policy_of(&delivery.kind);
        let case = Case { delivery, policy, topology, now: (self.worker.clock)() };
        let properties = &message.properties;
        if let Some(delay) = message.not_now {
            return case.not_its_turn(delay);
        }
        if let Some(due_at) = headers::due_at(properties)
            && let Ok(remaining) = (due_at - case.now).to_std()
            && !remaining.is_zero()
        {
            return case.arrived_early(remaining, due_at);
        }
        let Some(Registered { handler, .. }) = handlers.get(delivery.kind.as_str()) else {
            let patience = self.worker.unknown_kind_timeout;
            return case.unknown_kind(message.count(UNKNOWN_KIND), message.unknown_since(), patience);
        };
        if let Some(reason) = headers::unsupported_content(properties) {
            return case.park(reason.clone(), reason);
        }
        let started = Instant::now();
        let outcome = self.perform(handler.as_ref(), delivery, &message.payload).await;
        metrics.handler_seconds.record(started.elapsed());
        if outcome.is_failure() {
            metrics.failed.increment(1);
        }
        Case { now: (self.worker.clock)(), ..case }.settle(outcome, message.count(GIVEN_BACK))
    }

    /// Runs the handler; there is an outcome whatever it does.
    async fn perform(&self, handler: &dyn AnyHandler, delivery: &Delivery, payload: &[u8]) -> Outcome {
        let run = async { handler.start(payload, delivery.clone()).await };
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
        let max_attempts = delivery.max_attempts.unwrap_or_default();
        let properties = headers::of_copy(original, delivery, copy, max_attempts, (self.worker.clock)());
        let Address { exchange, routing_key } = &copy.to;
        let (exchange, routing_key) = (exchange.as_str().into(), routing_key.as_str().into());
        Outgoing { id: delivery.message_id.clone(), exchange, routing_key, payload, properties }
    }

    /// `Some` once the copy is confirmed; with a reason when it was parked instead, because its headers are too large for a
    /// frame. Retries as long as the message may be held, and tries once in any case: giving it back means doing the job
    /// again, and the broker counts it. Meanwhile the job keeps its slot, so jobs whose copies have nowhere to go do not pile up.
    async fn publish_copy(
        &self,
        mut outgoing: Outgoing,
        unsettled: &Unsettled,
        give_up: Instant,
    ) -> Option<Option<String>> {
        let mut pauses = Reconnect::new();
        let mut parked_for = None;
        let mut tried = false;
        // Without a usable acknowledgement the broker delivers the original again: a copy would be a duplicate.
        while unsettled.is_usable() && (!tried || Instant::now() < give_up) {
            tried = true;
            let Err(error) = self.publisher.send(outgoing.clone()).await else { return Some(parked_for) };
            warn!(%error, "the job's copy is not safe yet");
            match error {
                PublishError::Invalid { problem, .. } if parked_for.is_none() => {
                    let reason = format!("its copy for {} could not be published: {problem}", outgoing.routing_key);
                    outgoing.properties = headers::without_foreign(&outgoing.properties, &reason);
                    outgoing.exchange = "".into();
                    outgoing.routing_key = self.worker.topology.parked_queue().into();
                    parked_for = Some(reason);
                    continue;
                }
                PublishError::Returned { .. } | PublishError::NoExchange { .. } => {
                    if let Err(error) = self.worker.broker.declare(&self.worker.topology).await {
                        // The queue or the exchange was deleted and cannot be declared again yet.
                        warn!(%error, "the topology could not be declared");
                    }
                }
                _ => {}
            }
            sleep(pauses.delay_after(Duration::ZERO)).await;
        }
        warn!("the job's copy could not be published in time; the job will run again");
        None
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
