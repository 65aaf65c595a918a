//! What a worker does about each of Stripe's answers: one exhaustive match. Pure.

use std::time::Duration;

use crate::ledger::Remainder;
use crate::stripe::{Meaning, Report};

/// What to do next about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is done, and these are Stripe's ids of it and of what moved the money.
    Succeed { id: String, balance_transaction: Option<String> },
    /// It fails permanently, with this code of ours where Stripe gave none.
    Fail { code: &'static str },
    /// Stripe has ended what it had accepted: it fails permanently, and a replay may ask anew.
    End { code: &'static str },
    /// Read Stripe's list now; when ours is not in it, do as told.
    Look { otherwise: Otherwise },
    /// Try again; this uses up a retry.
    Retry { remainder: Remainder },
    /// Nothing was asked of Stripe: read the row again.
    ReadAgain,
    /// Try again; the job is not to blame, and no retry is used up.
    Wait { remainder: Remainder, reason: WaitFor },
}

/// What to do when Stripe's list has no reversal of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Otherwise {
    /// Somebody else's reversal did our work.
    TakeTheForeignOne,
    /// Fail permanently; the amount never shrinks silently.
    Fail,
}

/// Whom a job waits for that is not to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// The rate limit.
    Rate,
    /// The look and the settling time before a new key.
    NewKey,
    /// Another request, which works on the same transfer or under the same key.
    OtherRequest,
    /// An operator: the key or the connection to Stripe is wrong, for every job.
    Operator,
    /// The end of an outage: the circuit breaker had let the job through to try Stripe out.
    Recovery,
    /// The balance of whoever is to pay; has its own deadline.
    Balance,
    /// Stripe, which has accepted the reversal.
    Stripe,
}

/// What follows from `report`.
pub(crate) fn decide(report: &Report) -> Decision {
    let retry = |remainder| Decision::Retry { remainder };
    let wait = |remainder, reason| Decision::Wait { remainder, reason };
    match &report.meaning {
        Meaning::Reversed { reversal_id: id, balance_transaction } => {
            Decision::Succeed { id: id.clone(), balance_transaction: balance_transaction.clone() }
        }
        Meaning::Created { transfer_id: id } => Decision::Succeed { id: id.clone(), balance_transaction: None },
        Meaning::Pending { reversal_id } => wait(Remainder::Accepted { id: reversal_id.clone() }, WaitFor::Stripe),
        Meaning::Ended { .. } => Decision::End { code: "reversal_ended" },
        // Saved for the key, perhaps long before this ledger was restored: what came after it is in Stripe's list.
        Meaning::BalanceInsufficient if report.replayed => wait(Remainder::Burnt, WaitFor::Balance),
        _ if report.replayed => wait(Remainder::Burnt, WaitFor::NewKey),
        Meaning::NotSent => Decision::ReadAgain,
        Meaning::Unreadable | Meaning::ServerError => retry(Remainder::Unknown),
        Meaning::Unreached | Meaning::Unavailable | Meaning::Forbidden => retry(Remainder::SameKey),
        Meaning::KeyInUse | Meaning::Locked => wait(Remainder::SameKey, WaitFor::OtherRequest),
        Meaning::RateLimited => wait(Remainder::SameKey, WaitFor::Rate),
        Meaning::TlsFailed | Meaning::Denied => wait(Remainder::SameKey, WaitFor::Operator),
        Meaning::BalanceInsufficient => wait(Remainder::NewKey, WaitFor::Balance),
        Meaning::AlreadyReversed => Decision::Look { otherwise: Otherwise::TakeTheForeignOne },
        Meaning::MoreThanLeft | Meaning::KeyMisused => Decision::Look { otherwise: Otherwise::Fail },
        Meaning::NoSuchTransfer | Meaning::NoSuchAccount => Decision::Fail { code: "resource_missing" },
        Meaning::Rejected => Decision::Fail { code: "rejected" },
    }
}

/// How long to wait for another request after having `waited` so far: about as long again, so it grows. Half to one and a
/// half times that, by `random`, so those who have met part.
pub(crate) fn delay_for_other(waited: Duration, random: u8) -> Duration {
    waited / 2 + waited / 255 * u32::from(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(remainder: Remainder) -> Decision {
        Decision::Retry { remainder }
    }

    fn report(meaning: Meaning, replayed: bool) -> Report {
        let (http_status, request_id, code, retry_after) = (None, None, None, None);
        Report { meaning, http_status, request_id, code, message: String::new(), retry_after, replayed }
    }

    fn wait(remainder: Remainder, reason: WaitFor) -> Decision {
        Decision::Wait { remainder, reason }
    }

    #[test]
    fn each_meaning_leads_to_what_the_table_of_outcomes_says() {
        use Remainder as A;
        let reversal_id = || "trr_1".to_owned();
        let rows = [
            (
                Meaning::Reversed { reversal_id: reversal_id(), balance_transaction: Some("txn_1".into()) },
                Decision::Succeed { id: reversal_id(), balance_transaction: Some("txn_1".into()) },
            ),
            (
                Meaning::Created { transfer_id: "tr_1".into() },
                Decision::Succeed { id: "tr_1".into(), balance_transaction: None },
            ),
            // Looked at again, never called again.
            (Meaning::Pending { reversal_id: reversal_id() }, wait(A::Accepted { id: reversal_id() }, WaitFor::Stripe)),
            (Meaning::Ended { status: "failed".into() }, Decision::End { code: "reversal_ended" }),
            // May have moved money: looked at before another call.
            (Meaning::Unreadable, retry(A::Unknown)),
            (Meaning::ServerError, retry(A::Unknown)),
            // The same call under the same key is safe.
            (Meaning::Unreached, retry(A::SameKey)),
            (Meaning::Unavailable, retry(A::SameKey)),
            (Meaning::Forbidden, retry(A::SameKey)),
            (Meaning::NotSent, Decision::ReadAgain),
            // The job is not to blame.
            (Meaning::KeyInUse, wait(A::SameKey, WaitFor::OtherRequest)),
            (Meaning::Locked, wait(A::SameKey, WaitFor::OtherRequest)),
            (Meaning::RateLimited, wait(A::SameKey, WaitFor::Rate)),
            (Meaning::Denied, wait(A::SameKey, WaitFor::Operator)),
            (Meaning::TlsFailed, wait(A::SameKey, WaitFor::Operator)),
            // A definite refusal that can heal: the old key would replay it for a day.
            (Meaning::BalanceInsufficient, wait(A::NewKey, WaitFor::Balance)),
            (Meaning::AlreadyReversed, Decision::Look { otherwise: Otherwise::TakeTheForeignOne }),
            (Meaning::MoreThanLeft, Decision::Look { otherwise: Otherwise::Fail }),
            (Meaning::NoSuchTransfer, Decision::Fail { code: "resource_missing" }),
            (Meaning::NoSuchAccount, Decision::Fail { code: "resource_missing" }),
            (Meaning::KeyMisused, Decision::Look { otherwise: Otherwise::Fail }),
            (Meaning::Rejected, Decision::Fail { code: "rejected" }),
        ];
        for (meaning, expected) in rows {
            assert_eq!(decide(&report(meaning.clone(), false)), expected, "{meaning:?}");
        }
    }

    #[test]
    fn the_wait_for_another_request_grows_and_is_jittered() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
        assert_eq!(delay_for_other(minute, 0), minute / 2);
        assert!(delay_for_other(minute, 255) > minute * 14 / 10 && delay_for_other(minute, 255) <= minute * 3 / 2);
        assert!(delay_for_other(hour, 0) > delay_for_other(minute, 255));
    }

    #[test]
    fn a_failure_that_stripe_had_saved_burns_the_key_and_is_looked_behind() {
        let burnt = Remainder::Burnt;
        for meaning in [Meaning::ServerError, Meaning::Unreadable, Meaning::Rejected, Meaning::MoreThanLeft] {
            let expected = wait(burnt.clone(), WaitFor::NewKey);
            assert_eq!(decide(&report(meaning.clone(), true)), expected, "{meaning:?}");
        }
        assert_eq!(decide(&report(Meaning::BalanceInsufficient, true)), wait(burnt, WaitFor::Balance));
        let done = Decision::Succeed { id: "trr_1".to_owned(), balance_transaction: None };
        assert_eq!(
            decide(&report(Meaning::Reversed { reversal_id: "trr_1".into(), balance_transaction: None }, true)),
            done
        );
    }
}
