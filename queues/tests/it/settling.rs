//! What becomes of a message after each outcome.

use crate::support::{Count, Running, bench, eventually, publish, scripted};
use queues::{Delivery, Job, Message, Outcome, Publisher};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

fn retry(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.to_owned() }
}

#[tokio::test]
async fn a_job_that_is_done_leaves_nothing_behind() {
    bench(&[200], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(5)).await;
        let (job, delivery, _) = heard.next().await;
        assert_eq!(job, Count { number: 5 });
        let mut expected = Delivery::new(format!("{}-5", bench.name), "count");
        (expected.attempt, expected.max_attempts) = (1, Some(3));
        expected.first_published_at = delivery.first_published_at;
        assert_eq!(delivery, expected);
        worker.stop().await;
        let statuses = bench.broker.queue_statuses(&bench.topology).await.unwrap();
        assert!(statuses.iter().all(|status| status.messages == 0), "{statuses:?}");
    })
    .await;
}

#[tokio::test]
async fn a_retry_waits_its_delay_is_counted_and_keeps_what_belongs_to_the_job() {
    bench(&[200, 400], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| retry("no luck"));
        let worker = Running::start(bench.worker().register(handler)).await;
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        publish(&bench, bench.job(1).with_correlation_id("c-1").with_traceparent(traceparent)).await;
        let mut times = Vec::new();
        for attempt in 1..=3 {
            let (job, delivery, at) = heard.next().await;
            assert_eq!((job.number, delivery.attempt), (1, attempt));
            assert_eq!(delivery.correlation_id.as_deref(), Some("c-1"));
            assert_eq!(delivery.traceparent.as_deref(), Some(traceparent));
            assert_eq!(delivery.parked_reason, None);
            times.push(at);
        }
        assert!(times[1] - times[0] >= Duration::from_millis(200), "{times:?}");
        assert!(times[2] - times[1] >= Duration::from_millis(400), "{times:?}");
        let parked = &bench.parked(1).await[0];
        worker.stop().await;
        heard.nothing_more();
        let (properties, headers) = (&parked["properties"], &parked["properties"]["headers"]);
        assert_eq!(properties["message_id"], format!("{}-1", bench.name));
        assert_eq!((&properties["type"], &properties["delivery_mode"]), (&json!("count"), &json!(2)));
        assert_eq!((&headers["attempt"], &headers["max-attempts"]), (&json!(3), &json!(3)));
        assert_eq!(headers["last-error"], "no luck");
        assert_eq!(headers["parked-reason"], "exhausted after 3 attempts: no luck");
        assert_eq!(headers["traceparent"], traceparent);
        assert!(headers["failed-at"].as_str().unwrap().ends_with('Z'), "{headers}");
        let names: Vec<&String> = headers.as_object().unwrap().keys().collect();
        assert!(names.iter().all(|name| !name.starts_with("x-") && *name != "replayed"), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn the_copy_in_the_retry_queue_carries_no_trace_of_the_broker() {
    bench(&[60_000], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| retry("later"));
        let worker = Running::start(bench.worker().register(handler)).await;
        // As a message that has been around already, from a program that is not ours.
        let headers = json!({
            "attempt": 2, "x-death": [{ "queue": "q", "reason": "expired", "count": 1 }], "x-first-death-queue": "q",
            "x-last-death-reason": "expired", "x-delivery-count": 3, "x-acquired-count": 3, "kept": "yes", "CC": [],
        });
        let properties = json!({ "type": "count", "message_id": "m-1", "expiration": "3600000", "user_id": bench.management.user(), "headers": headers });
        assert!(bench.management.publish(&bench.name, properties, r#"{"number":1}"#).await);
        assert_eq!(heard.next().await.1.attempt, 2);
        worker.stop().await;
        let queue = bench.topology.retry_queue(Duration::from_secs(60));
        let copy = &bench.management.get_messages(&queue, 1).await[0];
        let (properties, headers) = (copy["properties"].as_object().unwrap(), &copy["properties"]["headers"]);
        assert_eq!(headers["attempt"], 3);
        assert_eq!(headers["kept"], "yes");
        let names: Vec<&String> = headers.as_object().unwrap().keys().collect();
        assert_eq!(names, ["attempt", "failed-at", "kept", "last-error", "max-attempts"], "{headers}");
        assert!(!properties.contains_key("expiration") && !properties.contains_key("user_id"), "{properties:?}");
        assert_eq!(copy["payload"], r#"{"number":1}"#);
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_counts_for_itself_is_retried_when_it_says_however_often() {
    bench(&[100, 60_000], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.attempt {
            5 => Outcome::Done,
            _ => Outcome::RetryAfter { delay: Duration::from_millis(50), reason: "again".to_owned() },
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        for attempt in 1..=5 {
            assert_eq!(heard.next().await.1.attempt, attempt);
        }
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_snooze_waits_and_does_not_count() {
    bench(&[100], async |bench| {
        let (tell, mut hear) = mpsc::unbounded_channel();
        let handler = move |_: Count, delivery: Delivery| {
            let _ = tell.send((delivery, Instant::now()));
            async { Outcome::Snooze { delay: Duration::from_millis(100), reason: "not yet".to_owned() } }
        };
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        let mut last: Option<Instant> = None;
        // More often than the policy has retries.
        for _ in 0..5 {
            let (delivery, at) = hear.recv().await.unwrap();
            assert_eq!(delivery.attempt, 1);
            assert!(last.is_none_or(|last| at - last >= Duration::from_millis(100)));
            last = Some(at);
        }
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_snooze_longer_than_the_longest_queue_ends_when_it_is_due_and_does_not_count() {
    bench(&[100], async |bench| {
        let runs = AtomicU32::new(0);
        let (handler, mut heard) = scripted::<Count>(move |_| match runs.fetch_add(1, Ordering::Relaxed) {
            0 => Outcome::Snooze { delay: Duration::from_millis(750), reason: "not yet".to_owned() },
            _ => Outcome::Done,
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        let (_, _, first) = heard.next().await;
        let (_, delivery, second) = heard.next().await;
        assert!(second - first >= Duration::from_millis(750), "{:?}", second - first);
        assert_eq!(delivery.attempt, 1);
        worker.stop().await;
        heard.nothing_more();
    })
    .await;
}

#[tokio::test]
async fn a_job_that_handlers_return_without_end_is_parked_on_every_broker() {
    bench(&[50], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::GiveBack);
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        let parked = bench.parked(1).await;
        worker.stop().await;
        let headers = &parked[0]["properties"]["headers"];
        assert_eq!(headers["parked-reason"], "handlers returned it to the queue again and again");
        let mut runs = Vec::new();
        for _ in 0..22 {
            runs.push(heard.next().await.2);
        }
        heard.nothing_more();
        assert!(runs[21] - runs[0] >= Duration::from_millis(500), "no waiting in between: {runs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_not_json_in_utf_8_is_parked_with_the_property_that_says_so() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        let cases = [
            (
                json!({ "content_type": "text/xml" }),
                Some(r#"the content type must be application/json in UTF-8 (got "text/xml")"#),
            ),
            (json!({ "content_encoding": "gzip" }), Some(r#"the content encoding must be utf-8 or none (got "gzip")"#)),
            (
                json!({ "content_type": "Application/JSON; charset=latin1" }),
                Some(r#"(got "application/json; charset=latin1")"#),
            ),
            (json!({ "content_type": "application/vnd.shop+json; charset=UTF-8", "content_encoding": "utf-8" }), None),
        ];
        for (index, (mut properties, _)) in cases.clone().into_iter().enumerate() {
            properties["type"] = json!("count");
            properties["message_id"] = json!(index.to_string());
            assert!(bench.management.publish(&bench.name, properties, r#"{"number":1}"#).await);
        }
        assert_eq!(heard.next().await.1.message_id, "3");
        let parked = bench.parked(3).await;
        worker.stop().await;
        heard.nothing_more();
        for message in parked {
            let index: usize = message["properties"]["message_id"].as_str().unwrap().parse().unwrap();
            let reason = message["properties"]["headers"]["parked-reason"].as_str().unwrap();
            assert!(reason.contains(cases[index].1.unwrap()), "{reason}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_foreign_count_of_attempts_is_believed_up_to_the_maximum() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| retry("no luck"));
        let worker = Running::start(bench.worker().register(handler)).await;
        let properties = json!({ "type": "count", "headers": { "attempt": 4_000_000_000_u32 } });
        assert!(bench.management.publish(&bench.name, properties, r#"{"number":1}"#).await);
        assert_eq!(heard.next().await.1.attempt, 3);
        let parked = bench.parked(1).await;
        worker.stop().await;
        assert_eq!(parked[0]["properties"]["headers"]["parked-reason"], "exhausted after 3 attempts: no luck");
    })
    .await;
}

#[tokio::test]
async fn a_job_is_parked_with_the_reason_and_a_long_one_is_cut() {
    bench(&[100], async |bench| {
        let (handler, _heard) = scripted::<Count>(|delivery| Outcome::Park {
            reason: if delivery.message_id.ends_with("-1") { "no such order".to_owned() } else { "ß".repeat(5000) },
        });
        let worker = Running::start(bench.worker().concurrency(1).register(handler)).await;
        publish(&bench, bench.job(1)).await;
        assert_eq!(bench.parked(1).await[0]["properties"]["headers"]["parked-reason"], "no such order");
        publish(&bench, bench.job(2)).await;
        let parked = bench.parked(2).await;
        worker.stop().await;
        let second = parked.iter().find(|message| message["payload"] == r#"{"number":2}"#).unwrap();
        let reason = second["properties"]["headers"]["parked-reason"].as_str().unwrap();
        assert_eq!(reason, format!("{}…", "ß".repeat(500)));
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_cannot_be_decoded_is_parked_untouched() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        let payload = b"\x00\xff{not json".to_vec();
        publish(&bench, Message::new(&bench.topology, Count::KIND, "broken-1", payload)).await;
        let parked = bench.parked(1).await;
        worker.stop().await;
        heard.nothing_more();
        assert_eq!(
            (&parked[0]["payload"], &parked[0]["payload_encoding"]),
            (&json!("AP97bm90IGpzb24="), &json!("base64"))
        );
        let properties = &parked[0]["properties"];
        assert_eq!((&properties["message_id"], &properties["type"]), (&json!("broken-1"), &json!("count")));
        let reason = properties["headers"]["parked-reason"].as_str().unwrap();
        assert_eq!(reason, "undecodable payload: Syntax error at line 1 column 1");
    })
    .await;
}

#[tokio::test]
async fn unknown_and_missing_kinds_are_parked_and_a_missing_id_is_made_up() {
    bench(&[100], async |bench| {
        let (handler, _heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = bench.worker().unknown_kind_timeout(Duration::from_millis(500)).register(handler);
        let worker = Running::start(worker).await;
        assert!(bench.management.publish(&bench.name, json!({ "type": "sing" }), "{}").await);
        assert!(bench.management.publish(&bench.name, json!({}), "{}").await);
        let parked = bench.parked(2).await;
        worker.stop().await;
        let mut reasons: Vec<&str> =
            parked.iter().map(|message| message["properties"]["headers"]["parked-reason"].as_str().unwrap()).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, [r#"unknown job kind """#, r#"unknown job kind "sing""#]);
        assert!(parked.iter().all(|message| message["properties"]["message_id"].as_str().unwrap().len() == 36));
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_given_back_comes_again_at_once() {
    bench(&[60_000], async |bench| {
        let (handler, mut heard) =
            scripted::<Count>(|delivery| if delivery.redelivered { Outcome::Done } else { Outcome::GiveBack });
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        assert!(!heard.next().await.1.redelivered);
        let (_, delivery, _) = heard.next().await;
        assert!(delivery.redelivered && delivery.attempt == 1, "{delivery:?}");
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn thousands_that_are_done_behind_one_that_is_not_are_acknowledged_once_and_without_it() {
    const JOBS: u32 = 20_000;
    bench(&[100], async |bench| {
        let (tell, mut started) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let open = Arc::clone(&gate);
        let handler = move |job: Count, _: Delivery| {
            let (tell, gate) = (tell.clone(), Arc::clone(&gate));
            async move {
                let _ = tell.send(job.number);
                if job.number == 0 {
                    gate.acquire().await.unwrap().forget();
                }
                Outcome::Done
            }
        };
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..JOBS)).await {
            result.unwrap();
        }
        let worker = Running::start(bench.worker().register(handler)).await;
        // Many times the prefetch: as fast as the others are acknowledged, and only because they are.
        for number in 0..JOBS {
            assert_eq!(started.recv().await, Some(number));
        }
        assert!(worker.state.borrow().is_connected());
        open.add_permits(1);
        worker.stop().await;
        // The broker closes the channel of whoever acknowledges twice, and delivers again what is not acknowledged.
        assert_eq!(started.recv().await, None, "a job came twice");
        bench.drained().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_headers_fill_a_frame_is_parked_once_and_costs_no_connection() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| retry("no luck"));
        let worker = Running::start(bench.worker().register(handler)).await;
        let headers = json!({ "large": "x".repeat(130_900) });
        let properties = json!({ "type": "count", "message_id": "large-1", "headers": headers });
        assert!(bench.management.publish(&bench.name, properties, r#"{"number":1}"#).await);
        assert_eq!(heard.next().await.1.headers["large"].len(), 130_900);
        let parked = bench.parked(1).await;
        worker.stop().await;
        heard.nothing_more();
        let (properties, headers) = (&parked[0]["properties"], &parked[0]["properties"]["headers"]);
        assert_eq!(properties["message_id"], "large-1");
        let reason = headers["parked-reason"].as_str().unwrap();
        assert!(reason.contains("headers must have at most") && headers["last-error"] == "no luck", "{headers}");
        assert!(headers.get("large").is_none());
        assert_eq!(bench.ready(&bench.name).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_copy_is_not_safe_is_not_acknowledged() {
    bench(&[100], async |bench| {
        let worker = bench.worker().drain_timeout(Duration::from_secs(1));
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Park { reason: "hopeless".to_owned() });
        let mut worker = Running::start(worker.register(handler)).await;
        // In the place of the parking queue comes one that takes nothing.
        bench.management.delete("queues", &bench.topology.parked_queue()).await;
        let full = json!({ "x-max-length": 0, "x-overflow": "reject-publish" });
        bench.management.declare(&bench.topology.parked_queue(), full).await;
        publish(&bench, bench.job(1)).await;
        heard.next().await;
        worker.ask_to_stop();
        worker.stopped().await;
        eventually("the message", async || (bench.ready(&bench.name).await == 1).then_some(())).await;
    })
    .await;
}
