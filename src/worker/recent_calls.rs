//! What the most recent calls to Stripe met, and what that says of Stripe: can it be used, or does one job fail? Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::stripe::{Meaning, Report};

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
/// So many unknown transfers, or accounts, in a row look like the wrong account or mode; so many jobs that are refused in the
/// same words in a row, like a setting of the platform's account.
const BURST: usize = 10;
/// Calls about so many accounts that are forbidden, and none that went well in between, look like a key that may do nothing.
const ACCOUNTS: usize = 2;
/// A job that fails alone in so many trials is not spared in the next.
const SPARED_ALONE: u32 = 3;

const FORBIDDEN: &str = "Stripe forbids calls about several accounts (check the permissions of STRIPE_API_KEY)";
const SAME_WORDS: &str = "Stripe refuses the calls of many jobs in the same words (a setting of the account?)";

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
    refused_in_a_row: Refusals,
    /// The accounts whose calls were forbidden since one went well.
    forbidden: HashMap<String, Instant>,
    /// When Stripe last answered a call, whatever it said.
    answered: Option<Instant>,
    /// From when Stripe answered a probe until it answers a call.
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Call {
    at: Instant,
    job: Uuid,
    failed: bool,
}

/// Of which jobs Stripe has refused the calls in these words, and in no others since.
#[derive(Debug, Default)]
struct Refusals {
    words: String,
    jobs: HashMap<Uuid, Instant>,
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
        self.trial = Some(Trial { rounds: rounds.saturating_add(1), failed });
        self.calls.clear();
        self.unknown_in_a_row = 0;
    }

    /// How often Stripe has been tried out since it last answered a call.
    pub(super) fn rounds(&self) -> u32 {
        self.trial.as_ref().map_or(0, |trial| trial.rounds)
    }

    /// Whether Stripe has answered a call lately. While it answers none, a failure says nothing of the job.
    pub(super) fn answers(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now.saturating_duration_since(at) <= RECENT)
    }

    /// Adds what a call of `job` about `account` met at `at`.
    pub(super) fn add(&mut self, job: Uuid, account: &str, report: &Report, at: Instant) -> Verdict {
        let meaning = &report.meaning;
        if *meaning == Meaning::NotSent {
            return Verdict::default();
        }
        if let Some(verdict) = self.is_refused(meaning) {
            return verdict;
        }
        let failed = matches!(meaning, Meaning::Unreached | Meaning::Unavailable | Meaning::ServerError);
        let forbidden = self.is_forbidden(account, meaning, at);
        let answered = !failed && !matches!(meaning, Meaning::RateLimited | Meaning::Forbidden);
        let for_all = match self.refused_in_a_row.add(job, report, at) {
            true => Some(SAME_WORDS),
            false => forbidden.then_some(FORBIDDEN),
        };
        if let Some(trial) = &mut self.trial {
            let why = match meaning {
                Meaning::Forbidden => Some(FORBIDDEN),
                _ if failed => Some("Stripe answers reads, but calls fail still"),
                _ => for_all,
            };
            if why.is_some() && trial.fails_with(job) {
                return Verdict { unusable: why, spared: true };
            }
            if answered {
                self.trial = None;
            }
        } else if for_all.is_some() {
            return Verdict { unusable: for_all, spared: true };
        }
        if answered {
            self.answered = Some(at);
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
    fn is_refused(&mut self, meaning: &Meaning) -> Option<Verdict> {
        let (why, spared) = match meaning {
            Meaning::Denied => ("Stripe refuses the API key (check STRIPE_API_KEY)", false),
            Meaning::TlsFailed => ("Stripe's TLS certificate can't be verified (check STRIPE_API_BASE)", false),
            Meaning::NoSuchTransfer | Meaning::NoSuchAccount => {
                self.unknown_in_a_row += 1;
                if self.unknown_in_a_row < BURST {
                    return None;
                }
                // Those that were on their way meanwhile are hardly to blame.
                const WHY: &str = "Stripe knows none of the transfers or accounts (check that STRIPE_API_KEY is of this \
                                   account and mode)";
                (WHY, true)
            }
            _ => {
                self.unknown_in_a_row = 0;
                return None;
            }
        };
        Some(Verdict { unusable: Some(why), spared })
    }

    /// Whether calls about several accounts are forbidden, with this one.
    fn is_forbidden(&mut self, account: &str, meaning: &Meaning, at: Instant) -> bool {
        match meaning {
            Meaning::Forbidden => {
                self.forbidden.retain(|_, then| at.saturating_duration_since(*then) <= RECENT);
                self.forbidden.insert(account.to_owned(), at);
                self.forbidden.len() >= ACCOUNTS
            }
            Meaning::Reversed { .. } | Meaning::Created { .. } | Meaning::Pending { .. } => {
                self.forbidden.clear();
                false
            }
            _ => false,
        }
    }

    fn most_have_failed(&self) -> bool {
        let failures = self.calls.iter().filter(|call| call.failed);
        let jobs: HashSet<Uuid> = failures.clone().map(|call| call.job).collect();
        let failures = failures.count();
        let all_of_the_first = failures >= FIRST_FEW && failures == self.calls.len();
        jobs.len() >= JOBS && (failures >= MOST || all_of_the_first)
    }
}

impl Refusals {
    /// Whether so many jobs were refused in the same words as this one, with this one, that the job is hardly to blame.
    fn add(&mut self, job: Uuid, report: &Report, at: Instant) -> bool {
        match report.meaning {
            Meaning::Rejected => {}
            // These say nothing of what Stripe refuses.
            Meaning::Unreached | Meaning::Unavailable | Meaning::ServerError | Meaning::RateLimited => return false,
            _ => {
                self.jobs.clear();
                return false;
            }
        }
        let words = words(report);
        if words != self.words {
            *self = Self { words, jobs: HashMap::new() };
        }
        self.jobs.retain(|_, then| at.saturating_duration_since(*then) <= RECENT);
        self.jobs.insert(job, at);
        self.jobs.len() >= BURST
    }
}

/// Code and message without what differs by job: ids and numbers.
fn words(report: &Report) -> String {
    let message = report.message.split_whitespace();
    let same = message.filter(|word| !word.contains(|letter: char| letter.is_ascii_digit() || letter == '_'));
    report.code.as_deref().into_iter().chain(same).collect::<Vec<_>>().join(" ")
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
    const ACCOUNT: &str = "acct_1";

    /// Which of the calls, a second apart and of two jobs by turns, turn the switch off.
    fn turn_off(meanings: impl IntoIterator<Item = Meaning>) -> Vec<bool> {
        let (mut recent, start) = (RecentCalls::default(), Instant::now());
        let calls = (0..).zip(meanings);
        let jobs = [JOB_A, JOB_B].into_iter().cycle();
        calls
            .zip(jobs)
            .map(|((second, meaning), job)| {
                recent.add(job, ACCOUNT, &report(meaning), start + Duration::from_secs(second)).unusable.is_some()
            })
            .collect()
    }

    fn report(meaning: Meaning) -> Report {
        refusal(meaning, "")
    }

    fn refusal(meaning: Meaning, message: &str) -> Report {
        let (http_status, request_id, code, retry_after) = (None, None, None, None);
        Report { meaning, http_status, request_id, code, message: message.to_owned(), retry_after, replayed: false }
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
            assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::Unavailable), now)), (false, false));
        }
    }

    #[test]
    fn what_went_well_long_ago_does_not_hide_an_outage_from_a_quiet_worker() {
        let (mut recent, start) = (RecentCalls::default(), Instant::now());
        for _ in 0..WINDOW {
            recent.add(JOB_A, ACCOUNT, &report(Meaning::AlreadyReversed), start);
        }
        // Two jobs that are tried again after 1, 2, 4 and 8 minutes.
        let minutes = [0, 1, 3, 7, 15].map(|minute| start + Duration::from_secs(60 * (30 + minute)));
        let calls = minutes.iter().flat_map(|at| [(JOB_A, at), (JOB_B, at)]);
        let verdicts: Vec<bool> = calls
            .map(|(job, at)| recent.add(job, ACCOUNT, &report(Meaning::Unreached), *at).unusable.is_some())
            .collect();
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
    fn one_account_that_is_forbidden_stops_no_other_and_two_do() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        let call = |recent: &mut RecentCalls, account, meaning| off(recent.add(JOB_A, account, &report(meaning), now));
        let reversed = || Meaning::Reversed { reversal_id: "trr_1".into(), balance_transaction: None };
        for _ in 0..2 * BURST {
            assert_eq!(call(&mut recent, "acct_1", Meaning::Forbidden), (false, false));
        }
        assert!(!recent.answers(now), "while nothing else is answered, its retries are kept");
        assert_eq!(call(&mut recent, "acct_2", reversed()), (false, false));
        assert!(recent.answers(now));
        assert_eq!(call(&mut recent, "acct_1", Meaning::Forbidden), (false, false));
        assert_eq!(call(&mut recent, "acct_2", Meaning::Forbidden), (true, true));
        recent.begin_trial();
        assert_eq!(call(&mut recent, "acct_2", Meaning::Forbidden), (true, true));
        assert_eq!(call(&mut recent, "acct_2", reversed()), (false, false));
        assert_eq!(recent.rounds(), 0);
    }

    #[test]
    fn a_job_is_spared_when_those_before_it_were_unknown_too() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        let mut unknown = || off(recent.add(JOB_A, ACCOUNT, &report(Meaning::NoSuchTransfer), now));
        assert!((1..BURST).all(|_| unknown() == (false, false)));
        assert_eq!([unknown(), unknown()], [(true, true); 2]);
    }

    #[test]
    fn on_trial_the_first_failure_turns_off_again_and_is_spared_until_a_call_is_answered() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        for round in 1..=5 {
            recent.begin_trial();
            assert_eq!(recent.rounds(), round);
            for job in [JOB_A, JOB_B] {
                assert_eq!(
                    off(recent.add(job, ACCOUNT, &report(Meaning::Unavailable), now)),
                    (true, true),
                    "round {round}"
                );
            }
        }
        assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::ServerError), now)), (true, true));
        // 429 says nothing of the calls that are let through.
        assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::RateLimited), now)), (false, false));
        assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::Unreached), now)), (true, true));
        assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::AlreadyReversed), now)), (false, false));
        assert_eq!(recent.rounds(), 0);
        assert_eq!(off(recent.add(JOB_B, ACCOUNT, &report(Meaning::Unavailable), now)), (false, false));
    }

    #[test]
    fn a_job_that_fails_trial_after_trial_alone_is_not_spared_for_ever() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        for _ in 0..SPARED_ALONE {
            recent.begin_trial();
            assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::Unavailable), now)), (true, true));
        }
        recent.begin_trial();
        assert_eq!(off(recent.add(JOB_A, ACCOUNT, &report(Meaning::Unavailable), now)), (false, false));
    }

    #[test]
    fn many_jobs_that_are_refused_in_the_same_words_turn_off_and_the_last_is_spared() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        let refused =
            |n: usize| refusal(Meaning::Rejected, &format!("Transfer tr_{n} can't be reversed: {n}00 is wrong"));
        let job = |n: usize| Uuid::from_u128(n as u128);
        for n in 1..BURST {
            assert_eq!(off(recent.add(job(n), ACCOUNT, &refused(n), now)), (false, false), "{n}");
        }
        // One job alone, however often, is its own fault.
        assert_eq!(off(recent.add(job(1), ACCOUNT, &refused(1), now)), (false, false));
        assert_eq!(off(recent.add(job(BURST), ACCOUNT, &refused(BURST), now)), (true, true));
        recent.begin_trial();
        assert_eq!(off(recent.add(job(20), ACCOUNT, &refused(20), now)), (true, true));
        recent.begin_trial();
        assert_eq!(off(recent.add(job(21), ACCOUNT, &report(Meaning::AlreadyReversed), now)), (false, false));
        assert_eq!(off(recent.add(job(22), ACCOUNT, &refused(22), now)), (false, false));
    }

    #[test]
    fn refusals_in_other_words_or_with_a_success_in_between_turn_nothing_off() {
        let (mut recent, now) = (RecentCalls::default(), Instant::now());
        for n in 0..200_usize {
            let words = ["The account is closed", "The amount is too small"][n / (BURST - 1) % 2];
            let report = refusal(Meaning::Rejected, words);
            assert_eq!(off(recent.add(Uuid::from_u128(n as u128), ACCOUNT, &report, now)), (false, false), "{n}");
        }
    }

    #[test]
    fn stripe_answers_as_long_as_a_call_was_answered_lately() {
        let (mut recent, start) = (RecentCalls::default(), Instant::now());
        recent.add(JOB_A, ACCOUNT, &report(Meaning::Unavailable), start);
        recent.add(JOB_A, ACCOUNT, &report(Meaning::RateLimited), start);
        assert!(!recent.answers(start));
        recent.add(JOB_B, ACCOUNT, &report(Meaning::BalanceInsufficient), start);
        assert!(recent.answers(start + RECENT));
        assert!(!recent.answers(start + RECENT + Duration::from_secs(1)));
    }
}
