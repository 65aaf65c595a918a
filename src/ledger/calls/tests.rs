//! What is to be done about a call, and what a try leaves behind in it, to the last second.

use std::time::Duration;

use chrono::TimeDelta;

use super::fold::*;
use super::*;
use crate::ledger::db::Graces;
use crate::ledger::status::CallKind;
use crate::ledger::status::CallState;

const GRACE: Duration = Duration::from_secs(60);

fn target(now: DateTime<Utc>) -> ReversalTarget {
    ReversalTarget {
        source: Source::Stripe,
        claim_ref: "re_1".to_owned(),
        claim_created_at: Some(now),
        payment_ref: "pi_1".to_owned(),
        transfer_id: Uuid::now_v7(),
        stripe_transfer_id: Some("tr_1".to_owned()),
        amount: 700,
        currency: "eur".to_owned(),
        refund_application_fee: false,
        claim_stands: true,
        transfer_amount: 900,
        destination: "acct_1".to_owned(),
    }
}

fn creation() -> CreationTarget {
    CreationTarget {
        payment_ref: "pi_1".to_owned(),
        payment_currency: "eur".to_owned(),
        destination: "acct_1".to_owned(),
        registered: 900,
        ordinal: 0,
        amount: 800,
        currency: "usd".to_owned(),
    }
}

/// A call that was never made, and what for.
fn task(now: DateTime<Utc>) -> Task {
    let graces = Graces { reverse: GRACE, create: GRACE };
    let call = Call::new(Uuid::now_v7(), CallKind::Reverse, CallState::Open, now, graces);
    Task { call, target: Target::Reversal(target(now)), read_at: now, paused: false }
}

impl Call {
    /// One that was never made.
    pub(crate) fn of_tests() -> Self {
        task(Utc::now()).call
    }
}

impl Task {
    /// A reversal that was never asked for.
    pub(crate) fn of_tests() -> Self {
        task(Utc::now())
    }
}

fn why() -> Failure {
    Failure { code: "unavailable".to_owned(), message: "HTTP 503".to_owned() }
}

fn later(until: DateTime<Utc>, remainder: Remainder) -> TryOutcome {
    TryOutcome::Later(Postponement { until, retries: Retries::Used, remainder, failure: why() })
}

#[test]
fn a_call_is_made_once_its_time_has_come_and_not_a_moment_before() {
    let now = Utc::now();
    let mut task = task(now);
    assert_eq!(task.next_step(now), NextStep::Make);
    task.call.next_attempt_at = Some(now);
    assert_eq!(task.next_step(now), NextStep::Make);
    assert_eq!(task.next_step(now - TimeDelta::microseconds(1)), NextStep::Wait { until: now });
    for state in [CallState::Waiting, CallState::Done, CallState::CalledOff] {
        task.call.state = state;
        assert_eq!(task.next_step(now), NextStep::Nothing);
    }
    task.call.state = CallState::Failed;
    task.call.fail(Some(&why()));
    assert_eq!(task.next_step(now), NextStep::Park { reason: "unavailable: HTTP 503".to_owned() });
    task.call.fail(None);
    let unknown = "permanently_failed: failed permanently earlier".to_owned();
    assert_eq!(task.next_step(now), NextStep::Park { reason: unknown });
}

#[test]
fn a_key_is_trusted_for_23_hours_unless_it_was_accepted_or_is_burnt() {
    let (now, day) = (Utc::now(), TimeDelta::hours(23));
    let task = task(now);
    assert!(task.may_be_made(now + day));
    assert!(!task.may_be_made(now + day + TimeDelta::microseconds(1)));
    assert!(!task.call.after(&later(now, Remainder::Burnt), now, GRACE).key_is_usable(now));
    let accepted = Remainder::Accepted { id: "trr_1".to_owned() };
    assert!(!task.call.after(&later(now, accepted), now, GRACE).key_is_usable(now));
    let failed = Target::Reversal(ReversalTarget { claim_stands: false, ..target(now) });
    assert!(!Task { target: failed, ..task }.may_be_made(now), "it is not owed");
}

#[test]
fn a_first_call_looks_where_a_lost_ledger_may_have_made_it_more_than_23_hours_ago() {
    let (now, day) = (Utc::now(), TimeDelta::hours(23));
    let of = |age: Option<TimeDelta>| {
        let claim_created_at = age.map(|age| now - age);
        Task { target: Target::Reversal(ReversalTarget { claim_created_at, ..target(now) }), ..task(now) }
    };
    assert_eq!(of(Some(day)).next_step(now), NextStep::Make);
    let older = of(Some(day + TimeDelta::microseconds(1)));
    assert_eq!(older.next_step(now), NextStep::Look);
    assert_eq!(of(None).next_step(now), NextStep::Look);
    // It was asked for, or another generation has begun: then it was looked for before.
    let asked = Call { requested_at: Some(now), ..older.call.clone() };
    assert_eq!(Task { call: asked, ..older.clone() }.next_step(now), NextStep::Make);
    let begun = Call { generation: 1, ..older.call.clone() };
    assert_eq!(Task { call: begun, ..older }.next_step(now), NextStep::Make);
    assert_eq!(Task { target: Target::Creation(creation()), ..task(now) }.next_step(now), NextStep::Look);
    let told = NotificationTarget { topic: "reversal.reversed".to_owned(), body: "{}".to_owned() };
    assert_eq!(Task { target: Target::Notification(told), ..task(now) }.next_step(now), NextStep::Make);
}

#[test]
fn a_message_is_older_than_its_call_only_beyond_the_seconds_of_the_brokers_clock() {
    let now = Utc::now();
    let call = task(now).call;
    for (parked, expected) in [(None, false), (Some(0), false), (Some(1_000), false), (Some(1_001), true)] {
        let parked_at = parked.map(|ago| now - TimeDelta::milliseconds(ago));
        assert_eq!(call.has_changed_since(parked_at), expected, "{parked:?}");
    }
}

#[test]
fn a_try_leaves_behind_what_the_next_must_know() {
    let (now, until) = (Utc::now(), Utc::now() + TimeDelta::minutes(1));
    let call = task(now).call;
    let put_off = call.after(&later(until, Remainder::SameKey), now, GRACE);
    assert_eq!((put_off.version, put_off.attempts, put_off.generation), (2, 1, 0));
    assert_eq!((put_off.next_attempt_at, put_off.sweep_after), (Some(until), until + TimeDelta::seconds(60)));
    assert_eq!(put_off.failure_code.as_deref(), Some("unavailable"));
    assert_eq!(put_off.outcome_unknown_since, None);

    for remainder in [Remainder::Unknown, Remainder::Burnt, Remainder::Absent] {
        let doubtful = put_off.after(&later(until, remainder.clone()), now, GRACE);
        let burnt = (remainder == Remainder::Burnt).then_some(now);
        let absent = (remainder == Remainder::Absent).then_some(now);
        assert_eq!((doubtful.outcome_unknown_since, doubtful.attempts), (Some(now), 2), "{remainder:?}");
        assert_eq!((doubtful.key_burnt_at, doubtful.absent_since), (burnt, absent), "{remainder:?}");
        // The first time counts.
        let again = doubtful.after(&later(until, remainder), until, GRACE);
        assert_eq!((again.outcome_unknown_since, again.key_burnt_at, again.absent_since), (Some(now), burnt, absent));
    }
    let refused = put_off.after(&later(until, Remainder::NewKey), now, GRACE);
    assert_eq!((refused.generation, refused.attempts, refused.refused_since), (1, 0, Some(now)));
    let begun = refused.after(&TryOutcome::NewGeneration, until, GRACE);
    assert_eq!((begun.generation, begun.generation_started_at, begun.requested_at), (2, until, None));
    let done = TryOutcome::Done { stripe_id: "trr_1".to_owned(), externally: false };
    let done = refused.after(&done, until, GRACE);
    assert_eq!((done.state, done.next_attempt_at, done.failure_code), (CallState::Done, None, None));
}

#[test]
fn what_has_failed_says_why_and_only_what_stripe_ended_has_burnt_its_key() {
    let now = Utc::now();
    let call = Call { accepted_id: Some("trr_1".to_owned()), next_attempt_at: Some(now), ..task(now).call };
    let failed = call.after(&TryOutcome::Failed(why()), now, GRACE);
    assert_eq!((failed.state, failed.next_attempt_at, failed.key_burnt_at), (CallState::Failed, None, None));
    assert_eq!(failed.failure_message.as_deref(), Some("HTTP 503"));
    let ended = call.after(&TryOutcome::Ended(why()), now, GRACE);
    assert_eq!((ended.state, ended.accepted_id, ended.key_burnt_at), (CallState::Failed, None, Some(now)));
    let called_off = call.after(&TryOutcome::CalledOff(why()), now, GRACE);
    assert_eq!((called_off.state, called_off.version, called_off.next_attempt_at), (CallState::CalledOff, 2, None));
    assert_eq!(called_off.failure_code.as_deref(), Some("unavailable"));
}

#[test]
fn a_replay_looks_before_its_key_is_used_again() {
    let now = Utc::now();
    let task = task(now);
    let call =
        task.call.after(&later(now, Remainder::Absent), now, GRACE).after(&TryOutcome::Failed(why()), now, GRACE);
    let (replayed, version) = (call.replayed(now, GRACE), call.version);
    assert_eq!((replayed.state, replayed.attempts, replayed.version), (CallState::Open, 0, version + 1));
    assert_eq!((replayed.absent_since, replayed.refused_since, replayed.sweep_count), (None, None, 0));
    assert_eq!((replayed.generation, replayed.sweep_after), (call.generation, now + TimeDelta::seconds(60)));
    assert_eq!(Task { call: replayed, ..task }.next_step(now), NextStep::Look);
}

#[test]
fn every_change_is_the_next_version_at_its_own_time() {
    let now = Utc::now();
    let (call, later) = (task(now).call, now + TimeDelta::seconds(1));
    for changed in [
        call.after(&TryOutcome::Failed(why()), later, GRACE),
        call.after(&TryOutcome::CalledOff(why()), later, GRACE),
        call.replayed(later, GRACE),
        call.moved_to(CallState::CalledOff, later),
    ] {
        assert_eq!((changed.version, changed.updated_at), (call.version + 1, later), "{:?}", changed.state);
    }
}

#[test]
fn logs_name_what_a_call_is_for() {
    let now = Utc::now();
    assert_eq!(task(now).target.in_logs(), ("pi_1", Some("tr_1"), 700, "eur"));
    assert_eq!(Target::Creation(creation()).in_logs(), ("pi_1", None, 800, "usd"));
    let (subject, reference) = (Subject::Refund, "re_1".to_owned());
    assert_eq!(Target::LookUp(LookUpTarget { subject, reference }).in_logs(), ("re_1", None, 0, ""));
    let told = NotificationTarget { topic: "reversal.reversed".to_owned(), body: "{}".to_owned() };
    assert_eq!(Target::Notification(told).in_logs(), ("", None, 0, ""));
}
