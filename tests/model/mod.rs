//! The ledger's state machine and the worker's decisions, explored exhaustively: every order of every step, with two workers,
//! duplicates, losses, deaths, lost answers, keys that Stripe forgets, a ledger that loses its last commit, a refund that fails,
//! an operator's replay.
//!
//! Nothing is copied: the changes of `src/ledger` run on rows in memory (`Rows`), and `next_step`, `decide`, `sight`, `after_look` and
//! `allocate` are the product's. What is modelled by hand is Stripe (`stripe.rs`), the order of a worker's steps (`worker.rs`), and
//! what can happen to them (`world.rs`, `bounds.rs`). `./dev model` explores more than the tests do, and prints what it found.

mod bounds;
mod properties;
mod stripe;
mod tell;
mod worker;
mod world;

use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use bounds::{Bounds, Broken, Fault};
use properties::{ENDS, NEVER_TOO_MUCH, NOT_CALLED_OFF};
use stripe::Trouble;
use tell::trace;

const NETWORK: &[Fault] =
    &[Fault::Crash, Fault::LostRequest, Fault::LostAnswer, Fault::TimeOut, Fault::DuplicateJob, Fault::LostJob];
const STRIPE: &[Fault] = &[
    Fault::Crash,
    Fault::LostAnswer,
    Fault::DuplicateJob,
    Fault::Trouble(Trouble::NoBalance),
    Fault::Trouble(Trouble::Fails),
    Fault::Trouble(Trouble::FailsAfterAll),
];
const LEDGER: &[Fault] = &[Fault::Crash, Fault::LostAnswer, Fault::DuplicateEvent, Fault::LostCommits];

/// A part of a transfer is taken: twice would be possible at Stripe.
const ONE: Bounds = Bounds {
    transfers: &[100],
    refunds: &[(40, &[40])],
    last_refund_fails: false,
    workers: 2,
    faults: 2,
    kinds: NETWORK,
    replays: 0,
    minutes: 1,
    days: 1,
    max_retries: 1,
    lost_commits: 3,
    broken: None,
};
const TWO: Bounds =
    Bounds { transfers: &[60, 40], refunds: &[(50, &[30, 20]), (30, &[18, 12])], minutes: 0, days: 0, ..ONE };

type Scenario = (&'static str, Bounds);

/// What the tests explore: some seconds.
fn small() -> Vec<Scenario> {
    vec![
        ("network: one refund, two workers, a day passes", Bounds { faults: 1, ..ONE }),
        ("Stripe: one refund, one worker, keys burn", Bounds { kinds: STRIPE, workers: 1, minutes: 2, ..ONE }),
        ("ledger: one refund, the last commits are lost", Bounds { kinds: LEDGER, faults: 1, ..ONE }),
        ("a refund that fails", Bounds { last_refund_fails: true, days: 0, faults: 1, ..ONE }),
        ("a replay", Bounds { max_retries: 0, replays: 1, days: 0, ..ONE }),
        ("two transfers, two refunds", Bounds { workers: 1, faults: 0, ..TWO }),
    ]
}

/// What `./dev model` explores: minutes.
fn large() -> Vec<Scenario> {
    vec![
        ("network: one refund, two workers, a day passes, three faults", Bounds { faults: 3, ..ONE }),
        ("Stripe: one refund, two workers, keys burn", Bounds { kinds: STRIPE, minutes: 2, ..ONE }),
        ("ledger: the last commit is lost, three faults", Bounds { kinds: LEDGER, faults: 3, lost_commits: 1, ..ONE }),
        ("ledger: the last three commits are lost, three faults", Bounds { kinds: LEDGER, faults: 3, ..ONE }),
        ("a refund that fails, two faults", Bounds { last_refund_fails: true, days: 0, ..ONE }),
        (
            "a refund that fails while the ledger loses commits",
            Bounds { last_refund_fails: true, kinds: LEDGER, ..ONE },
        ),
        ("a replay, a day passes", Bounds { max_retries: 0, replays: 1, ..ONE }),
        ("two transfers, two refunds, a fault", Bounds { workers: 1, faults: 1, ..TWO }),
        ("two transfers, two refunds, two workers", Bounds { faults: 0, ..TWO }),
    ]
}

/// Explores everything within `bounds`, and returns what was reached and what does not hold.
fn explore(name: &str, bounds: Bounds) -> Vec<&'static str> {
    let begun = Instant::now();
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    println!(
        "{name}: {} states, {} of them different, depth {}, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    for property in checker.model().properties() {
        let result = match (&property.expectation, found.get(property.name)) {
            (Expectation::Sometimes, Some(_)) => "reached",
            (Expectation::Sometimes, None) => "not reached",
            (_, None) => "holds",
            (_, Some(_)) => "FAILS",
        };
        println!("  {result:<12} {}", property.name);
        if result == "FAILS" {
            println!("{}", trace(&found[property.name].clone().into_vec()));
        }
    }
    found.into_keys().collect()
}

fn check(scenarios: Vec<Scenario>) {
    let all = scenarios.len() > 5;
    let mut reached = std::collections::BTreeSet::new();
    for (name, bounds) in scenarios {
        let properties = bounds.properties();
        let found = explore(name, bounds);
        let failed = properties.iter().filter(|property| property.expectation.discovery_is_failure());
        let failed: Vec<_> = failed.filter(|property| found.contains(&property.name)).map(|it| it.name).collect();
        assert!(failed.is_empty(), "{name}: {failed:?}");
        assert!(found.contains(&"all is taken"), "{name}: nothing is ever taken");
        reached.extend(found);
    }
    for goal in ["called off", "failed permanently", "a second key", "a burnt key", "looked twice"] {
        assert!(!all || reached.contains(goal), "{goal}: the model never gets there");
    }
}

#[test]
fn whatever_the_order_and_whatever_fails_nothing_is_lost_doubled_or_stuck() {
    check(small());
}

/// Explores one broken variant until something does not hold, and shows how it comes about.
fn fails(property: &'static str, bounds: Bounds) {
    let name = format!("{:?}", bounds.broken);
    let checker = bounds.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discovery(property);
    let Some(path) = found else { panic!("{name}: the model does not see what is wrong") };
    let path = path.into_vec();
    let (states, steps) = (checker.unique_state_count(), path.len() - 1);
    println!("{name}: not so: {property}, found after {states} states, in {steps} steps:\n{}", trace(&path));
}

#[test]
fn without_the_outbox_a_job_is_lost_for_good() {
    let kinds = &[Fault::LostOutbox];
    fails(ENDS, Bounds { kinds, broken: Some(Broken::OutboxAfterCommit), ..ONE });
}

#[test]
fn without_a_look_before_a_new_key_a_part_is_taken_twice() {
    let kinds = &[Fault::LostAnswer];
    fails(NEVER_TOO_MUCH, Bounds { kinds, faults: 1, broken: Some(Broken::NoLookBeforeNewKey), ..ONE });
}

#[test]
fn without_the_guard_of_the_version_a_stale_report_has_a_part_taken_twice() {
    let kinds = &[Fault::DuplicateJob];
    fails(NEVER_TOO_MUCH, Bounds { kinds, faults: 1, broken: Some(Broken::NoVersionGuard), ..ONE });
}

#[test]
fn with_random_ids_a_ledger_that_lost_a_commit_has_a_part_taken_twice() {
    fails(NEVER_TOO_MUCH, Bounds { kinds: LEDGER, faults: 1, broken: Some(Broken::RandomIds), ..ONE });
}

#[test]
fn with_the_mark_after_the_call_a_refund_that_failed_is_taken() {
    fails(NOT_CALLED_OFF, Bounds { last_refund_fails: true, faults: 1, broken: Some(Broken::MarkAfterCall), ..ONE });
}

/// `./dev model`. Minutes long, so it asks to be named: `all`, or a part of the scenarios' names.
#[test]
fn larger_bounds() {
    let Ok(wanted) = std::env::var("MODEL_LARGE") else { return };
    let is_wanted = |(name, _): &Scenario| wanted == "all" || name.contains(&wanted);
    check(large().into_iter().filter(is_wanted).collect());
}
