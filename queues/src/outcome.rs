//! What a handler answers. The worker's settling turns it into acknowledgements and copies.

use std::time::Duration;

/// How a job ended, and so what becomes of its message.
// Exhaustive: whoever wraps a handler wants to hear from the compiler of an outcome that it forgot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done, or there is nothing left to do: the message is acknowledged.
    Done,
    /// It failed, and may succeed later. The attempt counts; the worker's [`RetryPolicy`](crate::RetryPolicy) decides
    /// when it is tried again, or parks it as exhausted.
    Retry {
        /// Why it failed; kept in the header `last-error`, cut when long.
        reason: String,
    },
    /// It failed, and the handler, which keeps its own count, has decided that there is a next try and when. The attempt
    /// counts in the header, but the policy is not asked.
    RetryAfter {
        /// How long to wait: rounded up to a declared delay, see [`Topology::delay_for`](crate::Topology::delay_for).
        delay: Duration,
        /// Why it failed; kept in the header `last-error`, cut when long.
        reason: String,
    },
    /// It is too early, or something else is not ready: try later, and do not count this attempt.
    Snooze {
        /// How long to wait: rounded up to a declared delay, see [`Topology::delay_for`](crate::Topology::delay_for).
        delay: Duration,
        /// What is awaited; kept in the header `last-error`, cut when long.
        reason: String,
    },
    /// It will never succeed by itself: into the parking queue, for a person to look at.
    Park {
        /// Why; kept in the header `parked-reason`, cut when long.
        reason: String,
    },
    /// Back to the queue at once (nack with requeue), for this worker or another one. The broker counts it: a message
    /// that has been given back (or lost with its connection) more often than the work queue's delivery limit of
    /// [`DELIVERY_LIMIT`](crate::Topology::DELIVERY_LIMIT) is parked by the broker. (RabbitMQ 4.3 no longer counts a
    /// nack.) To wait for something, use [`Snooze`](Self::Snooze).
    GiveBack,
}
