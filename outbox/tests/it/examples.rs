//! The programs in `examples/`.

#[path = "../../../queues/tests/support/program.rs"]
mod program;
#[path = "../../../queues/tests/support/run_all.rs"]
mod run_all;

use {program::program, run_all::run_all};

/// What each prints, one part after the other.
const PRINTED: [(&str, &[&str]); 3] = [
    ("periodic_jobs", &["1: report@", "2: report@", "3: report@", "two schedulers"]),
    ("sea_orm_transaction", &["4711 is committed", "4711 is shipped"]),
    (
        "unique_jobs",
        &["1: Added", "1: Duplicate", "2: Added, rolled back", "receipt for", "receipt for", "one receipt"],
    ),
];

#[test]
fn every_example_runs_to_its_end_and_prints_what_it_shows() {
    run_all(env!("CARGO_MANIFEST_DIR"), &PRINTED, &[]);
}
