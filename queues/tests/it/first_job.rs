//! The example is run, not only compiled.

use crate::support::{Management, amqp_url};

#[path = "../../examples/first_job.rs"]
#[expect(unreachable_pub, reason = "it is a program of its own")]
mod example;

#[test]
fn the_first_program_has_at_most_60_lines() {
    assert!(include_str!("../../examples/first_job.rs").lines().count() <= 60);
}

#[test]
fn the_first_program_ends_with_its_job_done_after_a_replay() {
    let url = amqp_url();
    example::main().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let management = Management::from_environment(&url);
        for queue in ["example.receipts", "example.receipts.retry.500ms", "example.receipts.parked"] {
            assert!(management.get_messages(queue, 1).await.is_empty(), "{queue} is not empty");
            management.delete("queues", queue).await;
        }
        management.delete("exchanges", "example.jobs").await;
    });
}
