//! What the most recent calls to Stripe met, and what that says of Stripe: can it be used, or is it one job that fails?
//!
//! Pure.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::stripe::Meaning;

/// How many of the most recent calls are looked at.
const WINDOW: usize = 20;
/// What a call met longer ago says nothing of Stripe now.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// So many of them must have failed.
const MOST: usize = 16;
/// Fewer calls than this, and all of them failed, are enough, too.
const FIRST_FEW: usize = 5;
/// Of so many jobs at least: what fails for a single one may be its own fault.
const JOBS: usize = 2;
/// So many unknown transfers, or accounts, in a row look like the wrong account or mode.
const BURST: usize = 10;
/// A job that fails alone in so many trials is not spared in the next.
const SPARED_ALONE: u32 = 3;

/// What a call says of Stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why Stripe can't be used, if it can't.
    pub(super) unusable: Option<&'static str>,
    /// The job was let through to try Stripe out: its failure uses up no retry.
    pub(super) spared: bool,
}

/// What the most recent calls met.
#[derive(Debug, Default)]
pub(super) struct RecentCalls {
    calls: VecDeque<Call>,
    unknown_in_a_row: usize,
    /// From when Stripe answered a probe until it answers a call.
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Call {
    at: Instant,
    job: Uuid,
    failed: bool,
}

#[derive(Debug, Default)]
struct Trial {
    /// How often Stripe has been tried out since it last answered a call.
    rounds: u32,
    /// The jobs whose calls have failed in all of them.
    failed: HashSet<Uuid>,
}

impl RecentCalls {
    /// Stripe answers a probe again. That is a read: whether it takes calls, the next ones will show.
    pub(super) fn begin_trial(&mut self) {
        let Trial { rounds, failed } = self.trial.take().unwrap_or_default();
        *self = Self { trial: Some(Trial { rounds: rounds.saturating_add(1), failed }), ..Self::default() };
    }

    /// How often Stripe has been tried out since it last answered a call.
    pub(super) fn rounds(&self) -> u32 {
        self.trial.as_ref().map_or(0, |trial| trial.rounds)
    }

    /// Adds what a call of `job` met at `at`.
    pub(super) fn add(&mut self, job: Uuid, meaning: &Meaning, at: Instant) -> Verdict {
        if let Some(why) = self.is_refused(meaning) {
            return Verdict { unusable: Some(why), spared: false };
        }
        let failed = matches!(meaning, Meaning::Unreached | Meaning::Unavailable | Meaning::ServerError);
        if let Some(trial) = &mut self.trial {
            if failed && trial.fails_with(job) {
                // After a server error Stripe may have done it: that is a try like any other.
                let spared = *meaning != Meaning::ServerError;
                return Verdict { unusable: Some("Stripe answers reads, but calls fail still"), spared };
            }
            if !failed && *meaning != Meaning::RateLimited {
                self.trial = None;
            }
        }
        self.calls.push_back(Call { at, job, failed });
        while self.calls.len() > WINDOW
            || self.calls.front().is_some_and(|oldest| at.saturating_duration_since(oldest.at) > RECENT)
        {
            self.calls.pop_front();
        }
        let unusable = self.most_have_failed().then_some("most recent calls to Stripe failed");
        Verdict { unusable, spared: false }
    }

    /// What is wrong for every job, by what the answer itself says.
    fn is_refused(&mut self, meaning: &Meaning) -> Option<&'static str> {
        match meaning {
            Meaning::Denied => return Some("Stripe refuses the API key (check STRIPE_API_KEY)"),
            Meaning::TlsFailed => return Some("Stripe's TLS certificate can't be verified (check STRIPE_API_BASE)"),
            Meaning::NoSuchTransfer | Meaning::NoSuchAccount => self.unknown_in_a_row += 1,
            _ => self.unknown_in_a_row = 0,
        }
        (self.unknown_in_a_row >= BURST).then_some(
            "Stripe knows none of the transfers or accounts (check that STRIPE_API_KEY is of this account and mode)",
        )
    }

    fn most_have_failed(&self) -> bool {
        let failures = self.calls.iter().filter(|call| call.failed);
        let jobs: HashSet<Uuid> = failures.clone().map(|call| call.job).collect();
        let failures = failures.count();
        let all_of_the_first = failures >= FIRST_FEW && failures == self.calls.len();
        jobs.len() >= JOBS && (failures >= MOST || all_of_the_first)
    }
}

impl Trial {
    /// Whether Stripe can't be used, now that a call of `job` has failed, too. A job that fails trial after trial, and no
    /// other with it, has no outage to be spared for.
    fn fails_with(&mut self, job: Uuid) -> bool {
        self.failed.insert(job);
        self.failed.len() >= JOBS || self.rounds <= SPARED_ALONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB_A: Uuid = Uuid::from_u128(1);
    const JOB_B: Uuid = Uuid::from_u128(2);

    /// Which of the calls, a second apart and of two jobs by turns, turn the switch off.
    fn turn_off(meanings: impl IntoIterator<Item = Meaning>) -> Vec<bool> {
        let (mut recent, start) = (RecentCalls::default(), Instant::now());
        let calls = (0..).zip(meanings);
        let jobs = [JOB_A, JOB_B].into_iter().cycle();
        calls
            .zip(jobs)
            .map(|((second, meaning), job)| {
                recent.add(job, &meaning, start + Duration::from_secs(second)).unusable.is_some()
            })
            .collect()
    }

    fn off(verdict: Verdict) -> (bool, bool) {
        (verdict.unusable.is_some(), verdict.spared)
    }

    #[test]
    fn a_refused_key_turns_off_at_once() {
        assert_eq!(turn_off([Meaning::Denied]), [true]);
        assert_eq!(turn_off([Meaning::TlsFailed]), [true]);
    }

    #[test]
    fn an_outage_turns_off_after_the_first_few_calls() {
        let verdicts = turn_off(vec![Meaning::Unavailable; FIRST_FEW]);
        assert_eq!(verdicts.iter().position(|off| *off), Some(FIRST_FEW - 1));
    }

    #[test]
    fn half_of_the_calls_failing_does_not_turn_off() {
        let calls = (0..200).map(|n| if n % 4 < 2 { Meaning::Unreached } else { Meaning::AlreadyReversed });
        assert!(turn_off(calls).iter().all(|off| !off));
    }

    #[test]
    fn a_single_job_that_fails_again_and_again_does_not_turn_off() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(off(recent.add(JOB_A, &Meaning::Unavailable, now)), (false, false));
        }
    }

    #[test]
    fn what_went_well_long_ago_does_not_hide_an_outage_from_a_quiet_worker() {
        let (mut recent, start) = (RecentCalls::default(), Instant::now());
        for _ in 0..WINDOW {
            recent.add(JOB_A, &Meaning::AlreadyReversed, start);
        }
        // Two jobs that are tried again after 1, 2, 4 and 8 minutes.
        let minutes = [0, 1, 3, 7, 15].map(|minute| start + Duration::from_secs(60 * (30 + minute)));
        let calls = minutes.iter().flat_map(|at| [(JOB_A, at), (JOB_B, at)]);
        let verdicts: Vec<bool> =
            calls.map(|(job, at)| recent.add(job, &Meaning::Unreached, *at).unusable.is_some()).collect();
        assert_eq!(verdicts.iter().position(|off| *off), Some(FIRST_FEW - 1));
    }

    #[test]
    fn unknown_transfers_turn_off_only_in_a_row() {
        let mut calls = vec![Meaning::NoSuchTransfer; BURST - 1];
        calls.push(Meaning::AlreadyReversed);
        calls.extend(vec![Meaning::NoSuchTransfer; BURST]);
        assert_eq!(turn_off(calls).iter().position(|off| *off), Some(2 * BURST - 1));
    }

    #[test]
    fn on_trial_the_first_failure_turns_off_again_and_is_spared_until_a_call_is_answered() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        for round in 1..=5 {
            recent.begin_trial();
            assert_eq!(recent.rounds(), round);
            for job in [JOB_A, JOB_B] {
                assert_eq!(off(recent.add(job, &Meaning::Unavailable, now)), (true, true), "round {round}");
            }
        }
        // It may have moved money, and 429 says nothing of the calls that are let through.
        assert_eq!(off(recent.add(JOB_A, &Meaning::ServerError, now)), (true, false));
        assert_eq!(off(recent.add(JOB_A, &Meaning::RateLimited, now)), (false, false));
        assert_eq!(off(recent.add(JOB_A, &Meaning::Unreached, now)), (true, true));
        assert_eq!(off(recent.add(JOB_A, &Meaning::AlreadyReversed, now)), (false, false));
        assert_eq!(recent.rounds(), 0);
        assert_eq!(off(recent.add(JOB_B, &Meaning::Unavailable, now)), (false, false));
    }

    #[test]
    fn a_job_that_fails_trial_after_trial_alone_is_not_spared_for_ever() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        for _ in 0..SPARED_ALONE {
            recent.begin_trial();
            assert_eq!(off(recent.add(JOB_A, &Meaning::Unavailable, now)), (true, true));
        }
        recent.begin_trial();
        assert_eq!(off(recent.add(JOB_A, &Meaning::Unavailable, now)), (false, false));
    }
}
