//! The programs in `examples/`, and the README's first one.

use crate::support::{Management, amqp_url, run_all};

/// What each prints, one part after the other.
const PRINTED: [(&str, &[&str]); 10] = [
    ("batches", &["insert of 3 pages", "insert of 3 pages", "insert of 1 pages", "parked: page-4"]),
    (
        "check_topology",
        &["as declared: everything", "1 difference", ".retry.8s`: existence is nothing, wanted declared"],
    ),
    ("first_job", &["published", "attempt 1", "attempt 2", "parked;", "replayed and done"]),
    ("limits_per_key", &["calm-1", "busy-8", "the calm"]),
    ("long_delays", &["asked for 1 s", "asked for 3 s, came after 3."]),
    ("memory_broker", &["attempt 1", "1 days", "2 days", "4 days", "exhausted after 4 attempts"]),
    ("middleware", &["attempt 1 begins", "does not answer", "attempt 2 begins", "has answered"]),
    ("order_per_key", &["order A: step 2, attempt 1", "order A: step 2, attempt 2", "order A: step 3"]),
    ("policy_per_kind", &["send_invoice: attempt 5 of Some(5)", "parked: newsletter-1", "parked: invoice-1"]),
    ("typed_errors", &["card 1234, attempt 2", "parked: charge-9999 (there is no card 9999)"]),
];
/// Which other tests start, and kill.
const WORKERS: [&str; 2] = ["fault_worker", "ordered_worker"];

#[tokio::test]
async fn every_example_runs_to_its_end_and_prints_what_it_shows() {
    run_all(env!("CARGO_MANIFEST_DIR"), &PRINTED, &WORKERS);
    // The others have queues of their own, which they delete.
    let management = Management::from_environment(&amqp_url());
    for queue in ["example.receipts", "example.receipts.retry.500ms", "example.receipts.parked"] {
        assert!(management.get_messages(queue, 1).await.is_empty(), "{queue} is not empty");
        management.delete("queues", queue).await;
    }
    management.delete("exchanges", "example.jobs").await;
}

#[test]
fn the_first_program_has_at_most_30_lines_and_no_example_more_than_60() {
    let readme = include_str!("../../README.md");
    let program = readme.split("```rust,no_run\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(program.lines().count() <= 30);
    for (name, _) in PRINTED {
        let path = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::read_to_string(path).unwrap().lines().count() <= 60, "{name}");
    }
}
