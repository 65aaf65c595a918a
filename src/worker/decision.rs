//! What a worker does about each of Stripe's answers: one exhaustive match, pure. Called by the jobs.

use crate::ledger::{Aftermath, REVERSAL_ENDED};
use crate::stripe::Meaning;

/// What to do next about a reversal, or about a transfer that is to be created. A creation is never told to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is done, and this is Stripe's id of it.
    Succeed { id: String },
    /// It is given up, with this code of ours where Stripe gave none.
    GiveUp { code: &'static str },
    /// Read Stripe's list now; when ours is not in it, do as told.
    Look { otherwise: Otherwise },
    /// Try again; this uses up a retry.
    Retry { aftermath: Aftermath, pace: Pace },
    /// Try again; the job is not to blame, and no retry is used up.
    Wait { aftermath: Aftermath, reason: WaitFor },
}

/// What to do when Stripe's list has no reversal of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Somebody else's reversal did our work.
    TakeTheForeignOne,
    /// Give up; the amount never shrinks silently.
    GiveUp,
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
    /// The end of an outage: the kill switch had let the job through to try Stripe out.
    Recovery,
    /// The balance of whoever is to pay; has its own deadline.
    Balance,
    /// Stripe, which has accepted the reversal.
    Stripe,
}

/// What follows from `meaning`.
pub(super) fn decide(meaning: &Meaning) -> Decision {
    let retry = |aftermath, pace| Decision::Retry { aftermath, pace };
    let wait = |aftermath, reason| Decision::Wait { aftermath, reason };
    match meaning {
        Meaning::Reversed { reversal_id: id } | Meaning::Created { transfer_id: id } => {
            Decision::Succeed { id: id.clone() }
        }
        Meaning::Pending { reversal_id } => {
            wait(Aftermath::AcceptedByStripe { reversal_id: reversal_id.clone() }, WaitFor::Stripe)
        }
        Meaning::Ended { .. } => Decision::GiveUp { code: REVERSAL_ENDED },
        Meaning::Unreadable | Meaning::ServerError => retry(Aftermath::Doubtful, Pace::Backoff),
        Meaning::Unreached | Meaning::Unavailable => retry(Aftermath::SameEpoch, Pace::Backoff),
        Meaning::KeyInUse | Meaning::Locked => retry(Aftermath::SameEpoch, Pace::Soon),
        Meaning::RateLimited => wait(Aftermath::SameEpoch, WaitFor::Rate),
        Meaning::TlsFailed | Meaning::Denied => wait(Aftermath::SameEpoch, WaitFor::Operator),
        Meaning::BalanceInsufficient => wait(Aftermath::NewEpoch, WaitFor::Balance),
        Meaning::AlreadyReversed => Decision::Look { otherwise: Otherwise::TakeTheForeignOne },
        Meaning::MoreThanLeft => Decision::Look { otherwise: Otherwise::GiveUp },
        Meaning::NoSuchTransfer | Meaning::NoSuchAccount => Decision::GiveUp { code: "resource_missing" },
        Meaning::KeyMisused => Decision::GiveUp { code: "idempotency_error" },
        Meaning::Rejected => Decision::GiveUp { code: "rejected" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(aftermath: Aftermath, pace: Pace) -> Decision {
        Decision::Retry { aftermath, pace }
    }

    fn wait(aftermath: Aftermath, reason: WaitFor) -> Decision {
        Decision::Wait { aftermath, reason }
    }

    #[test]
    fn each_meaning_leads_to_what_the_table_of_outcomes_says() {
        use Aftermath as A;
        let reversal_id = || "trr_1".to_owned();
        let rows = [
            (Meaning::Reversed { reversal_id: reversal_id() }, Decision::Succeed { id: reversal_id() }),
            (Meaning::Created { transfer_id: "tr_1".into() }, Decision::Succeed { id: "tr_1".into() }),
            // Looked at again, never called again.
            (
                Meaning::Pending { reversal_id: reversal_id() },
                wait(A::AcceptedByStripe { reversal_id: reversal_id() }, WaitFor::Stripe),
            ),
            (Meaning::Ended { status: "failed".into() }, Decision::GiveUp { code: "reversal_ended" }),
            // May have moved money: looked at before another call.
            (Meaning::Unreadable, retry(A::Doubtful, Pace::Backoff)),
            (Meaning::ServerError, retry(A::Doubtful, Pace::Backoff)),
            // The same call under the same key is safe.
            (Meaning::Unreached, retry(A::SameEpoch, Pace::Backoff)),
            (Meaning::Unavailable, retry(A::SameEpoch, Pace::Backoff)),
            (Meaning::KeyInUse, retry(A::SameEpoch, Pace::Soon)),
            (Meaning::Locked, retry(A::SameEpoch, Pace::Soon)),
            // The job is not to blame.
            (Meaning::RateLimited, wait(A::SameEpoch, WaitFor::Rate)),
            (Meaning::Denied, wait(A::SameEpoch, WaitFor::Operator)),
            (Meaning::TlsFailed, wait(A::SameEpoch, WaitFor::Operator)),
            // A definite refusal that can heal: the old key would replay it for a day.
            (Meaning::BalanceInsufficient, wait(A::NewEpoch, WaitFor::Balance)),
            (Meaning::AlreadyReversed, Decision::Look { otherwise: Otherwise::TakeTheForeignOne }),
            (Meaning::MoreThanLeft, Decision::Look { otherwise: Otherwise::GiveUp }),
            (Meaning::NoSuchTransfer, Decision::GiveUp { code: "resource_missing" }),
            (Meaning::NoSuchAccount, Decision::GiveUp { code: "resource_missing" }),
            (Meaning::KeyMisused, Decision::GiveUp { code: "idempotency_error" }),
            (Meaning::Rejected, Decision::GiveUp { code: "rejected" }),
        ];
        for (meaning, expected) in rows {
            assert_eq!(decide(&meaning), expected, "{meaning:?}");
        }
    }
}
