//! What a worker does about each of Stripe's answers: one exhaustive match. Pure.

use crate::ledger::Remainder;
use crate::stripe::Meaning;

/// What to do next about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is done, and this is Stripe's id of it.
    Succeed { id: String },
    /// It fails permanently, with this code of ours where Stripe gave none.
    Fail { code: &'static str },
    /// Stripe has ended what it had accepted: it fails permanently, and a replay may ask anew.
    End { code: &'static str },
    /// Read Stripe's list now; when ours is not in it, do as told.
    Look { otherwise: Otherwise },
    /// Try again; this uses up a retry.
    Retry { remainder: Remainder, pace: Pace },
    /// Try again; the job is not to blame, and no retry is used up.
    Wait { remainder: Remainder, reason: WaitFor },
}

/// What to do when Stripe's list has no reversal of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Somebody else's reversal did our work.
    TakeTheForeignOne,
    /// Fail permanently; the amount never shrinks silently.
    Fail,
}

/// How long a retry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Exponentially longer with each retry.
    Backoff,
    /// The shortest delay: somebody holds a lock for a moment.
    Soon,
}

/// Whom a job waits for that is not to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// The rate limit.
    Rate,
    /// An operator: the key or the connection to Stripe is wrong, for every job.
    Operator,
    /// The end of an outage: the circuit breaker had let the job through to try Stripe out.
    Recovery,
    /// The balance of whoever is to pay; has its own deadline.
    Balance,
    /// Stripe, which has accepted the reversal.
    Stripe,
}

/// What follows from `meaning`.
pub(super) fn decide(meaning: &Meaning) -> Decision {
    let retry = |remainder, pace| Decision::Retry { remainder, pace };
    let wait = |remainder, reason| Decision::Wait { remainder, reason };
    match meaning {
        Meaning::Reversed { reversal_id: id } | Meaning::Created { transfer_id: id } => {
            Decision::Succeed { id: id.clone() }
        }
        Meaning::Pending { reversal_id } => wait(Remainder::Accepted { id: reversal_id.clone() }, WaitFor::Stripe),
        Meaning::Ended { .. } => Decision::End { code: "reversal_ended" },
        Meaning::Unreadable | Meaning::ServerError => retry(Remainder::Unknown, Pace::Backoff),
        Meaning::Unreached | Meaning::Unavailable => retry(Remainder::SameKey, Pace::Backoff),
        Meaning::KeyInUse | Meaning::Locked => retry(Remainder::SameKey, Pace::Soon),
        Meaning::RateLimited => wait(Remainder::SameKey, WaitFor::Rate),
        Meaning::TlsFailed | Meaning::Denied => wait(Remainder::SameKey, WaitFor::Operator),
        Meaning::BalanceInsufficient => wait(Remainder::NewKey, WaitFor::Balance),
        Meaning::AlreadyReversed => Decision::Look { otherwise: Otherwise::TakeTheForeignOne },
        Meaning::MoreThanLeft => Decision::Look { otherwise: Otherwise::Fail },
        Meaning::NoSuchTransfer | Meaning::NoSuchAccount => Decision::Fail { code: "resource_missing" },
        Meaning::KeyMisused => Decision::Fail { code: "idempotency_error" },
        Meaning::Rejected => Decision::Fail { code: "rejected" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(remainder: Remainder, pace: Pace) -> Decision {
        Decision::Retry { remainder, pace }
    }

    fn wait(remainder: Remainder, reason: WaitFor) -> Decision {
        Decision::Wait { remainder, reason }
    }

    #[test]
    fn each_meaning_leads_to_what_the_table_of_outcomes_says() {
        use Remainder as A;
        let reversal_id = || "trr_1".to_owned();
        let rows = [
            (Meaning::Reversed { reversal_id: reversal_id() }, Decision::Succeed { id: reversal_id() }),
            (Meaning::Created { transfer_id: "tr_1".into() }, Decision::Succeed { id: "tr_1".into() }),
            // Looked at again, never called again.
            (Meaning::Pending { reversal_id: reversal_id() }, wait(A::Accepted { id: reversal_id() }, WaitFor::Stripe)),
            (Meaning::Ended { status: "failed".into() }, Decision::End { code: "reversal_ended" }),
            // May have moved money: looked at before another call.
            (Meaning::Unreadable, retry(A::Unknown, Pace::Backoff)),
            (Meaning::ServerError, retry(A::Unknown, Pace::Backoff)),
            // The same call under the same key is safe.
            (Meaning::Unreached, retry(A::SameKey, Pace::Backoff)),
            (Meaning::Unavailable, retry(A::SameKey, Pace::Backoff)),
            (Meaning::KeyInUse, retry(A::SameKey, Pace::Soon)),
            (Meaning::Locked, retry(A::SameKey, Pace::Soon)),
            // The job is not to blame.
            (Meaning::RateLimited, wait(A::SameKey, WaitFor::Rate)),
            (Meaning::Denied, wait(A::SameKey, WaitFor::Operator)),
            (Meaning::TlsFailed, wait(A::SameKey, WaitFor::Operator)),
            // A definite refusal that can heal: the old key would replay it for a day.
            (Meaning::BalanceInsufficient, wait(A::NewKey, WaitFor::Balance)),
            (Meaning::AlreadyReversed, Decision::Look { otherwise: Otherwise::TakeTheForeignOne }),
            (Meaning::MoreThanLeft, Decision::Look { otherwise: Otherwise::Fail }),
            (Meaning::NoSuchTransfer, Decision::Fail { code: "resource_missing" }),
            (Meaning::NoSuchAccount, Decision::Fail { code: "resource_missing" }),
            (Meaning::KeyMisused, Decision::Fail { code: "idempotency_error" }),
            (Meaning::Rejected, Decision::Fail { code: "rejected" }),
        ];
        for (meaning, expected) in rows {
            assert_eq!(decide(&meaning), expected, "{meaning:?}");
        }
    }
}
