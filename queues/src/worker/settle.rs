//! What happens to a message after its job: the decision alone, pure.

use crate::{Outcome, RetryPolicy, Topology, headers::Copy};

/// What to do with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settlement {
    Ack,
    GiveBack,
    /// Publish a copy, await its confirm, then acknowledge the original.
    Copy(Copy),
}

impl Settlement {
    pub(super) fn of(outcome: Outcome, attempt: u32, policy: &RetryPolicy, topology: &Topology) -> Self {
        let retry = |delay, attempt, reason| {
            let queue = topology.retry_queue(topology.delay_for(delay));
            Self::Copy(Copy { queue, attempt, reason, parked_reason: None })
        };
        let park = |reason, parked_reason| {
            Self::Copy(Copy { queue: topology.parked_queue(), attempt, reason, parked_reason: Some(parked_reason) })
        };
        match outcome {
            Outcome::Done => Self::Ack,
            Outcome::GiveBack => Self::GiveBack,
            Outcome::Retry { reason } => match policy.next(attempt.saturating_sub(1)) {
                Some(delay) => retry(delay, attempt.saturating_add(1), reason),
                None => {
                    let parked_reason = format!("exhausted after {attempt} attempts: {reason}");
                    park(reason, parked_reason)
                }
            },
            Outcome::RetryAfter { delay, reason } => retry(delay, attempt.saturating_add(1), reason),
            Outcome::Snooze { delay, reason } => retry(delay, attempt, reason),
            Outcome::Park { reason } => park(reason.clone(), reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settled(outcome: Outcome, attempt: u32) -> Settlement {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(4), 2);
        let topology = Topology::new("jobs", "q", [1, 2, 60].map(Duration::from_secs)).unwrap();
        Settlement::of(outcome, attempt, &policy, &topology)
    }

    fn copy(queue: &str, attempt: u32, parked_reason: Option<&str>) -> Settlement {
        let (queue, parked_reason) = (queue.to_owned(), parked_reason.map(str::to_owned));
        Settlement::Copy(Copy { queue, attempt, reason: "why".to_owned(), parked_reason })
    }

    #[test]
    fn a_retry_counts_and_the_last_one_parks_the_job() {
        let retry = || Outcome::Retry { reason: "why".to_owned() };
        assert_eq!(settled(retry(), 1), copy("q.retry.1s", 2, None));
        assert_eq!(settled(retry(), 2), copy("q.retry.2s", 3, None));
        assert_eq!(settled(retry(), 3), copy("q.parked", 3, Some("exhausted after 3 attempts: why")));
    }

    #[test]
    fn a_handler_that_keeps_its_own_count_is_not_overruled_by_the_policy() {
        let later = Outcome::RetryAfter { delay: Duration::from_secs(3), reason: "why".to_owned() };
        assert_eq!(settled(later, 7), copy("q.retry.1m", 8, None));
    }

    #[test]
    fn a_snooze_does_not_count() {
        let snooze = Outcome::Snooze { delay: Duration::from_secs(2), reason: "why".to_owned() };
        assert_eq!(settled(snooze, 3), copy("q.retry.2s", 3, None));
    }

    #[test]
    fn the_rest_is_as_it_says() {
        assert_eq!(settled(Outcome::Done, 1), Settlement::Ack);
        assert_eq!(settled(Outcome::GiveBack, 1), Settlement::GiveBack);
        assert_eq!(settled(Outcome::Park { reason: "why".to_owned() }, 2), copy("q.parked", 2, Some("why")));
    }
}
