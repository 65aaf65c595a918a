//! What the jobs share: the ledger, Stripe, the one limiter and the one kill switch of this process; and the rules that
//! are the same for both. Made by `app`, one for each job, with the job's own retry policy.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use queues::{Delivery, Outcome, RetryPolicy};
use uuid::Uuid;

use super::decision::{Decision, WaitFor, decide};
use super::{KillSwitch, Limiter};
use crate::ledger::{Aftermath, Ledger, LedgerError, now};
use crate::stripe::{self, Meaning, Report};

/// Who the history names.
pub(super) const ACTOR: &str = "worker";
/// How often a job that another worker overtook reads its row again before it lets some time pass.
const MAX_OVERTAKEN: usize = 3;
/// Stripe prunes a key once it is 24 h old, and it runs again. Past this age the list is read first.
const TRUSTED_KEY_AGE: TimeDelta = TimeDelta::hours(23);
/// A job waits no longer than this for a turn to call: the time counts as the job's, and the job timeout cuts it off.
const LONGEST_WAIT_FOR_A_TURN: Duration = Duration::from_secs(30);
/// The broker counts the time of its own parking in whole seconds.
const PARKING_CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

/// The delays that are not the retry policy's.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a balance may be too low: a seller's, from when the debt was recorded; the platform's own, from when the
    /// transfer was registered.
    pub balance_deadline: Duration,
    /// Between two looks at Stripe's list that must both find nothing: longer than a call can be on its way.
    pub settling: Duration,
}

/// Why a job stops in the middle, with nothing to report of it.
#[derive(Debug)]
pub(super) enum Halt {
    /// The ledger did not take a report, or could not be read.
    Ledger(LedgerError),
    /// The limiter lets this worker call only after that long.
    NoTurn(Duration),
}

impl From<LedgerError> for Halt {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// What a job works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// What is to be done, and where it is reported.
    pub ledger: Ledger,
    /// Who does it.
    pub stripe: stripe::Client,
    /// Every call waits for its turn here.
    pub limiter: Arc<Limiter>,
    /// Is told what every call met.
    pub kill_switch: Arc<KillSwitch>,
    /// When a job is tried again, and how often.
    pub policy: RetryPolicy,
    /// The other delays.
    pub timing: Timing,
}

impl JobContext {
    /// Runs a job, again where another worker with a duplicate was faster: the row then says what is left to do.
    pub(super) async fn run<F: Future<Output = Result<Outcome, Halt>>>(&self, converge: impl Fn() -> F) -> Outcome {
        if self.kill_switch.is_off() {
            return Outcome::GiveBack;
        }
        for _ in 0..MAX_OVERTAKEN {
            match converge().await {
                Ok(outcome) => return outcome,
                Err(Halt::NoTurn(delay)) => {
                    let reason = format!("calls to Stripe are slowed down: the next turn is {delay:.0?} away");
                    return Outcome::Snooze { delay, reason };
                }
                Err(Halt::Ledger(LedgerError::Stale { .. })) => {}
                Err(Halt::Ledger(error @ LedgerError::Database(_))) => return self.not_now(error.to_string()),
                Err(Halt::Ledger(error)) => return Outcome::Retry { reason: error.to_string() },
            }
        }
        self.not_now("another worker holds the same job".to_owned())
    }

    /// Neither the row nor Stripe was touched: the message comes again.
    fn not_now(&self, reason: String) -> Outcome {
        Outcome::Snooze { delay: self.policy.delay(0), reason }
    }

    /// The outcome of a job whose next try lies ahead. Two machines' clocks may differ a little; a message that comes that
    /// much too early is on time.
    pub(super) fn too_early(&self, next_retry_at: Option<DateTime<Utc>>) -> Option<Outcome> {
        let delay = (next_retry_at? - now()).to_std().ok()?;
        let tolerance = (self.policy.delay(0) / 10).min(Duration::from_secs(1));
        (delay > tolerance).then(|| Outcome::Snooze { delay, reason: "its next try lies ahead".to_owned() })
    }

    /// Waits for this worker's turn to call Stripe. Neither the row nor Stripe is touched when it is too far away.
    pub(super) async fn turn(&self) -> Result<(), Halt> {
        self.limiter.turn_within(LONGEST_WAIT_FOR_A_TURN).await.map_err(Halt::NoTurn)
    }

    /// Learns from what a call of `job` met how fast, and whether, to go on calling, and decides what the job does.
    pub(super) fn judge(&self, job: Uuid, report: &Report) -> Decision {
        let spared = self.kill_switch.note(job, report);
        match report.meaning {
            Meaning::RateLimited => self.limiter.halve(report.retry_after),
            Meaning::Unreached | Meaning::TlsFailed => {}
            _ => self.limiter.raise(),
        }
        match spared {
            true => Decision::Wait { aftermath: Aftermath::SameEpoch, reason: WaitFor::Recovery },
            false => decide(&report.meaning),
        }
    }

    /// Whether it was absent from Stripe's list so long ago that a call on its way then must be in the list by now.
    pub(super) fn has_settled(&self, absent_since: Option<DateTime<Utc>>) -> bool {
        let ago = absent_since.and_then(|since| (now() - since).to_std().ok());
        ago.is_some_and(|ago| ago >= self.timing.settling)
    }
}

/// When an epoch must have begun for Stripe to have surely not forgotten its key: then, or later.
pub(super) fn oldest_trusted_epoch() -> DateTime<Utc> {
    now() - TRUSTED_KEY_AGE
}

/// Whether the message was parked because of the row's present failure, of that time. One that was parked earlier,
/// replayed, and is delivered again after the worker died between the new failure and its parking, must not count as
/// another replay.
pub(super) fn was_parked_for(failed_at: DateTime<Utc>, delivery: &Delivery) -> bool {
    let after_the_failure = |at: DateTime<Utc>| at + PARKING_CLOCK_TOLERANCE >= failed_at;
    delivery.parked_reason.is_some() && delivery.parked_at.is_none_or(after_the_failure)
}

/// Why a row was given up, for the message that is parked.
pub(super) fn given_up_because(code: Option<&str>, message: Option<&str>) -> String {
    let code = code.unwrap_or("permanently_failed");
    format!("{code}: {}", message.unwrap_or("given up earlier"))
}
