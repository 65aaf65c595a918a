//! What happens to a message after its job: the decision alone, pure.

use crate::{
    Delivery, Outcome, RetryPolicy, Topology,
    headers::{Copy, GIVEN_BACK, UNKNOWN_KIND},
    topology::Address,
};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// How often a returned job waits in a retry queue before it is parked. Between two waits it is returned once at once.
const MAX_GIVEN_BACK: u32 = 10;

/// What to do with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settlement {
    Ack,
    GiveBack,
    /// Publish a copy, await its confirm, then acknowledge the original.
    Copy(Why, Copy),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Retried,
    /// Delayed without using up an attempt.
    Snoozed,
    /// The delay with which it was published is not over.
    Early,
    Parked,
}

/// What a decision rests on besides the outcome.
pub(super) struct Case<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) policy: &'a RetryPolicy,
    pub(super) topology: &'a Topology,
    pub(super) now: DateTime<Utc>,
}

impl Case<'_> {
    /// `given_back` is the count so far.
    pub(super) fn settle(&self, outcome: Outcome, given_back: u32) -> Settlement {
        let attempt = self.delivery.attempt;
        match outcome {
            Outcome::Done => Settlement::Ack,
            // Only a copy can count on every version of RabbitMQ: 4.3 does not count a nack.
            // And where the order counts, one that is returned would come behind those that are here already.
            Outcome::GiveBack if !self.delivery.redelivered && !self.topology.is_partitioned() => Settlement::GiveBack,
            Outcome::GiveBack => self.wait(GIVEN_BACK, given_back, MAX_GIVEN_BACK, || {
                "handlers returned it to the queue again and again".to_owned()
            }),
            Outcome::Retry { reason } => match self.policy.next(attempt.saturating_sub(1)) {
                Some(delay) => self.delay(Why::Retried, delay, attempt.saturating_add(1), Some(reason)),
                None => {
                    let parked_reason = format!("exhausted after {attempt} attempts: {reason}");
                    self.park(reason, parked_reason)
                }
            },
            Outcome::RetryAfter { delay, reason } => {
                self.delay(Why::Retried, delay, attempt.saturating_add(1), Some(reason))
            }
            Outcome::Snooze { delay, reason } => self.delay(Why::Snoozed, delay, attempt, Some(reason)),
            Outcome::Park { reason } => self.park(reason.clone(), reason),
        }
    }

    /// The handler has not run: the delay was longer than the longest retry queue's.
    pub(super) fn arrived_early(&self, remaining: Duration, due_at: DateTime<Utc>) -> Settlement {
        let (attempt, due_at) = (self.delivery.attempt, Some(due_at));
        let (to, delay) = (self.after(remaining), remaining);
        Settlement::Copy(Why::Early, Copy { due_at, ..copy(to, delay, attempt, None) })
    }

    /// The handler has not run: other jobs of its key run, or have just run.
    pub(super) fn not_its_turn(&self, delay: Duration) -> Settlement {
        let reason = format!("the limit of its key {:?} is reached", self.delivery.key.as_deref().unwrap_or_default());
        self.delay(Why::Snoozed, delay, self.delivery.attempt, Some(reason))
    }

    /// `returned` is the count so far, and `since` when it began. By time, and not by the count: during a rolling deployment nine of
    /// ten workers may not know it. A message without a kind waits for nothing.
    pub(super) fn unknown_kind(&self, returned: u32, since: Option<DateTime<Utc>>, patience: Duration) -> Settlement {
        let reason = format!("unknown job kind {:?}", self.delivery.kind);
        let since = since.unwrap_or(self.now);
        let left = patience.saturating_sub((self.now - since).to_std().unwrap_or_default());
        if self.delivery.kind.is_empty() || left.is_zero() {
            return self.park(reason.clone(), reason);
        }
        let delay = self.topology.growing_delay(returned).min(left);
        let counter = Some((UNKNOWN_KIND, returned.saturating_add(1)));
        let copy = copy(self.after(delay), delay, self.delivery.attempt, Some(reason));
        Settlement::Copy(Why::Snoozed, Copy { counter, unknown_since: Some(since), ..copy })
    }

    pub(super) fn park(&self, reason: String, parked_reason: String) -> Settlement {
        let (to, attempt) = (Address::queue(self.topology.parked_queue()), self.delivery.attempt);
        let copy = copy(to, Duration::ZERO, attempt, Some(reason));
        Settlement::Copy(Why::Parked, Copy { parked_reason: Some(parked_reason), ..copy })
    }

    fn wait(&self, counter: &'static str, count: u32, limit: u32, reason: impl Fn() -> String) -> Settlement {
        if count >= limit {
            return self.park(reason(), reason());
        }
        let delay = self.topology.growing_delay(count);
        let copy = copy(self.after(delay), delay, self.delivery.attempt, Some(reason()));
        Settlement::Copy(Why::Snoozed, Copy { counter: Some((counter, count + 1)), ..copy })
    }

    fn delay(&self, why: Why, delay: Duration, attempt: u32, reason: Option<String>) -> Settlement {
        let is_too_long = delay > self.topology.longest_wait();
        let due_at =
            is_too_long.then(|| self.now.checked_add_signed(chrono::TimeDelta::from_std(delay).ok()?)).flatten();
        Settlement::Copy(why, Copy { due_at, ..copy(self.after(delay), delay, attempt, reason) })
    }

    /// Where a copy waits before it returns to the queue of its key.
    fn after(&self, delay: Duration) -> Address {
        let key = self.delivery.key.as_deref().unwrap_or(&self.delivery.message_id);
        self.topology.delayed(delay, &self.topology.work_queue_of(key))
    }
}

fn copy(to: Address, delay: Duration, attempt: u32, reason: Option<String>) -> Copy {
    Copy { to, delay, attempt, reason, parked_reason: None, due_at: None, counter: None, unknown_since: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn settled(outcome: Outcome, attempt: u32) -> Settlement {
        case(|case| case.settle(outcome, 0), attempt, false)
    }

    fn case(decide: impl FnOnce(&Case<'_>) -> Settlement, attempt: u32, redelivered: bool) -> Settlement {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(4), 2);
        let topology = Topology::new("jobs", "q", [1, 2, 60].map(Duration::from_secs)).unwrap();
        let mut delivery = Delivery::new("id", "kind");
        (delivery.attempt, delivery.redelivered) = (attempt, redelivered);
        decide(&Case { delivery: &delivery, policy: &policy, topology: &topology, now: NOW })
    }

    fn copy(why: Why, queue: &str, seconds: u64, attempt: u32, parked_reason: Option<&str>) -> Settlement {
        let (to, parked_reason) = (Address::queue(queue.to_owned()), parked_reason.map(str::to_owned));
        let copy = super::copy(to, Duration::from_secs(seconds), attempt, Some("why".to_owned()));
        Settlement::Copy(why, Copy { parked_reason, ..copy })
    }

    #[test]
    fn a_retry_counts_and_the_last_one_parks_the_job() {
        let retry = || Outcome::Retry { reason: "why".to_owned() };
        assert_eq!(settled(retry(), 1), copy(Why::Retried, "q.retry.1s", 1, 2, None));
        assert_eq!(settled(retry(), 2), copy(Why::Retried, "q.retry.2s", 2, 3, None));
        assert_eq!(settled(retry(), 3), copy(Why::Parked, "q.parked", 0, 3, Some("exhausted after 3 attempts: why")));
    }

    #[test]
    fn a_handler_that_keeps_its_own_count_is_not_overruled_by_the_policy() {
        let later = Outcome::RetryAfter { delay: Duration::from_secs(3), reason: "why".to_owned() };
        assert_eq!(settled(later, 7), copy(Why::Retried, "q.retry.1m", 3, 8, None));
    }

    #[test]
    fn a_snooze_does_not_count() {
        let snooze = Outcome::Snooze { delay: Duration::from_secs(2), reason: "why".to_owned() };
        assert_eq!(settled(snooze, 3), copy(Why::Snoozed, "q.retry.2s", 2, 3, None));
    }

    #[test]
    fn a_delay_beyond_the_longest_queue_is_remembered_until_it_is_over() {
        let snooze = Outcome::Snooze { delay: Duration::from_secs(90), reason: "why".to_owned() };
        let Settlement::Copy(_, snoozed) = settled(snooze, 1) else { unreachable!() };
        assert_eq!(
            (snoozed.to.routing_key.as_str(), snoozed.due_at),
            ("q.retry.1m", Some(NOW + Duration::from_secs(90)))
        );
        let rest = case(|case| case.arrived_early(Duration::from_millis(1500), NOW), 3, false);
        let Settlement::Copy(Why::Early, rest) = rest else { unreachable!() };
        assert_eq!(
            (rest.to.routing_key.as_str(), rest.attempt, rest.reason, rest.due_at),
            ("q.retry.2s", 3, None, Some(NOW))
        );
    }

    #[test]
    fn a_job_that_is_given_back_again_and_again_waits_longer_and_longer_and_is_then_parked() {
        let give_back = |count, redelivered| case(|case| case.settle(Outcome::GiveBack, count), 1, redelivered);
        assert_eq!(give_back(9, false), Settlement::GiveBack);
        for (count, expected) in [(0, "q.retry.1s"), (1, "q.retry.2s"), (9, "q.retry.1m"), (10, "q.parked")] {
            let Settlement::Copy(_, copy) = give_back(count, true) else { unreachable!() };
            assert_eq!((copy.to.routing_key.as_str(), copy.parked_reason.is_some()), (expected, count == 10));
            assert_eq!(copy.counter, (count < 10).then_some((GIVEN_BACK, count + 1)));
        }
    }

    #[test]
    fn a_job_of_an_unknown_kind_is_returned_for_as_long_as_a_deployment_may_last_however_often_and_is_then_parked() {
        const PATIENCE: Duration = Duration::from_secs(900);
        let unknown = |count, seconds: u64| {
            let since = Some(NOW - Duration::from_secs(seconds));
            case(|case| case.unknown_kind(count, since, PATIENCE), 1, false)
        };
        for (count, seconds, expected) in
            [(0, 0, "q.retry.1s"), (100, 100, "q.retry.1m"), (9, 899, "q.retry.1s"), (0, 900, "q.parked")]
        {
            let Settlement::Copy(_, copy) = unknown(count, seconds) else { unreachable!() };
            assert_eq!((copy.to.routing_key.as_str(), copy.attempt), (expected, 1));
            let since = (expected != "q.parked").then(|| NOW - Duration::from_secs(seconds));
            assert_eq!((copy.unknown_since, copy.counter.is_some()), (since, since.is_some()));
        }
        let first = case(|case| case.unknown_kind(0, None, PATIENCE), 1, false);
        let Settlement::Copy(Why::Snoozed, first) = first else { unreachable!() };
        assert_eq!(first.unknown_since, Some(NOW));
    }

    #[test]
    fn the_rest_is_as_it_says() {
        assert_eq!(settled(Outcome::Done, 1), Settlement::Ack);
        assert_eq!(settled(Outcome::GiveBack, 1), Settlement::GiveBack);
        let park = Outcome::Park { reason: "why".to_owned() };
        assert_eq!(settled(park, 2), copy(Why::Parked, "q.parked", 0, 2, Some("why")));
    }
}
