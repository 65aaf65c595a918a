//! The example is run, not only compiled.

use crate::support::{Management, amqp_url};
use serde_json::json;

#[path = "../../examples/first_job.rs"]
#[expect(unreachable_pub, reason = "it is a program of its own")]
mod example;

#[test]
fn the_first_program_ends_with_its_job_in_the_parking_queue() {
    let url = amqp_url();
    example::main().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let management = Management::from_environment(&url);
        let parked = management.get_messages("example.receipts.parked", 1).await;
        for queue in ["example.receipts", "example.receipts.retry.500ms", "example.receipts.parked"] {
            management.delete("queues", queue).await;
        }
        management.delete("exchanges", "example.jobs").await;
        let properties = &parked[0]["properties"];
        assert_eq!(properties["message_id"], "receipt-4711");
        assert_eq!(properties["headers"]["parked-reason"], "exhausted after 2 attempts: no printer");
        assert_eq!(properties["headers"]["max-attempts"], json!(2));
    });
}
