//! What `Ok` and what each error of publishing means.

use crate::support::{Count, Running, bench, eventually, scripted, wait_for};
use queues::{Broker, ConnectionState, Message, Outcome, PublishError, Publisher};
use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[tokio::test]
async fn a_confirmed_message_is_in_the_queue_with_its_properties() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let message = bench.job(7).with_correlation_id("refund-1").with_traceparent(traceparent);
        publisher.publish(message).await.unwrap();
        let message = &bench.management.get_messages(&bench.name, 1).await[0];
        let properties = &message["properties"];
        assert_eq!(message["payload"], r#"{"number":7}"#);
        assert_eq!(properties["message_id"], format!("{}-7", bench.name));
        assert_eq!(properties["type"], "count");
        assert_eq!(properties["delivery_mode"], 2);
        assert_eq!(properties["app_id"], bench.name.as_str());
        assert_eq!(properties["content_type"], "application/json");
        assert_eq!(properties["correlation_id"], "refund-1");
        let headers = properties["headers"].as_object().unwrap();
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["attempt", "published-ms", "traceparent"]);
        assert_eq!((&headers["attempt"], &headers["traceparent"]), (&json!(1), &json!(traceparent)));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now - properties["timestamp"].as_u64().unwrap() < 60);
        assert!(now - headers["published-ms"].as_u64().unwrap() / 1000 < 60);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_an_error_with_its_id() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let mut message = bench.job(1);
        message.routing_key = "nowhere".to_owned();
        let error = publisher.publish(message).await.unwrap_err();
        assert_eq!(error.message_id(), format!("{}-1", bench.name));
        assert!(matches!(&error, PublishError::Returned { reply, .. } if reply == "312 NO_ROUTE"), "{error:?}");
        // The same through the default exchange, as the worker publishes.
        let mut message = bench.job(2);
        (message.exchange, message.routing_key) = (String::new(), "nowhere".to_owned());
        let error = publisher.publish(message).await.unwrap_err();
        assert!(matches!(error, PublishError::Returned { .. }), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn of_a_batch_exactly_the_messages_that_no_queue_takes_fail() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let lost = |number: u32| number.is_multiple_of(7) || number.is_multiple_of(11);
        let mut messages = bench.jobs(0..2000);
        for (number, message) in (0..).zip(&mut messages) {
            if lost(number) {
                message.routing_key = "nowhere".to_owned();
            }
        }
        let results = publisher.publish_all(messages).await;
        assert_eq!(results.len(), 2000);
        for (number, result) in (0..).zip(results) {
            match result {
                Ok(()) => assert!(!lost(number), "message {number} was returned, and its error is lost"),
                Err(error) => {
                    assert!(lost(number), "message {number} has another one's error: {error}");
                    assert_eq!(error.message_id(), format!("{}-{number}", bench.name));
                    assert!(matches!(error, PublishError::Returned { .. }), "{error:?}");
                }
            }
        }
        assert_eq!(bench.ready(&bench.name).await, (0..2000).filter(|number| !lost(*number)).count() as u32);
    })
    .await;
}

#[tokio::test]
async fn copies_of_one_id_to_a_queue_and_to_nowhere_are_told_apart() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let (good, mut bad) = (bench.job(1), bench.job(1));
        bad.routing_key = "nowhere".to_owned();
        let results = publisher.publish_all(vec![good.clone(), bad.clone(), good, bad]).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
    })
    .await;
}

#[tokio::test]
async fn a_text_that_amqp_cannot_carry_is_refused_by_field_and_the_others_are_published() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let long = bench.job(1).with_correlation_id("c".repeat(256));
        let results = publisher.publish_all(vec![long, bench.job(2)]).await;
        let error = results[0].as_ref().unwrap_err();
        assert!(
            matches!(error, PublishError::Invalid { problem, .. } if problem.contains("correlation_id")),
            "{error}"
        );
        assert_eq!(results[1], Ok(()));
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_the_broker_might_refuse_is_refused_before_it_costs_its_neighbours() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let (mut large, mut largest) = (bench.job(1), bench.job(2));
        large.payload = vec![b' '; 16 * 1024 * 1024 + 1];
        largest.payload = vec![b' '; 16 * 1024 * 1024];
        let results = publisher.publish_all(vec![large, largest]).await;
        let error = results[0].as_ref().unwrap_err();
        assert!(matches!(error, PublishError::Invalid { problem, .. } if problem.contains("got 16777217")), "{error}");
        assert_eq!(results[1], Ok(()));
    })
    .await;
}

#[tokio::test]
async fn a_message_that_a_full_queue_refuses_is_an_error_with_its_id_and_the_publisher_goes_on() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        bench.management.set_policy(&bench.name, json!({ "max-length": 1 })).await;
        // The queue learns of its policy, and the publisher's channel of the full queue, a moment later.
        let publish = async || publisher.publish(bench.job(1)).await;
        let refusal = eventually("a refusal", async || publish().await.err()).await;
        assert_eq!(refusal, PublishError::Nacked { id: format!("{}-1", bench.name) });
        bench.management.delete("policies", &bench.name).await;
        eventually("room", async || publish().await.ok()).await;
        assert!(publisher.state().borrow().is_connected());
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_broker_closes_is_renewed() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(1)).await.unwrap();
        let mut state = publisher.state();
        bench.management.close_connection(&format!("{} (publish)", bench.name)).await;
        wait_for(&mut state, "the loss", |state| {
            matches!(state, ConnectionState::Reconnecting { last_error: Some(_), .. })
        })
        .await;
        publisher.publish(bench.job(2)).await.unwrap();
        assert!(publisher.state().borrow().is_connected());
        assert_eq!(bench.ready(&bench.name).await, 2);
    })
    .await;
}

#[tokio::test]
async fn publishing_through_a_stream_of_lost_connections_loses_no_confirmed_message() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(0)).await.unwrap();
        let breaking = async {
            for _ in 0..3 {
                bench.management.close_connection(&format!("{} (publish)", bench.name)).await;
            }
        };
        let publishing = async {
            let mut confirmed = BTreeSet::from([0]);
            for first in (1..6000).step_by(100) {
                let results = publisher.publish_all(bench.jobs(first..first + 100)).await;
                confirmed.extend((first..).zip(results).filter(|(_, result)| result.is_ok()).map(|(number, _)| number));
            }
            confirmed
        };
        let (confirmed, ()) = tokio::join!(publishing, breaking);
        assert!(confirmed.len() > 100, "{}", confirmed.len());
        let stored = bench.management.get_messages(&bench.name, 10_000).await;
        let number = |message: &serde_json::Value| {
            let payload: Count = serde_json::from_str(message["payload"].as_str().unwrap()).unwrap();
            payload.number
        };
        let stored: BTreeSet<u32> = stored.iter().map(number).collect();
        let gone: Vec<_> = confirmed.difference(&stored).collect();
        assert!(gone.is_empty(), "confirmed, and gone: {gone:?}");
    })
    .await;
}

#[tokio::test]
async fn a_missing_exchange_is_named_and_costs_no_other_message() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let mut messages = bench.jobs(0..1000);
        let missing = format!("{}.missing", bench.name);
        for number in [3, 500, 501, 999] {
            messages[number].exchange = missing.clone();
        }
        let results = publisher.publish_all(messages).await;
        for (number, result) in results.into_iter().enumerate() {
            let id = format!("{}-{number}", bench.name);
            let expected = match number {
                3 | 500 | 501 | 999 => Err(PublishError::NoExchange { id, exchange: missing.clone() }),
                _ => Ok(()),
            };
            assert_eq!(result, expected);
        }
        publisher.publish(bench.job(1000)).await.unwrap();
        assert_eq!(bench.ready(&bench.name).await, 997);
        bench.management.declare_exchange(&missing).await;
        let mut message = bench.job(1001);
        message.exchange = missing.clone();
        let error = publisher.publish(message).await.unwrap_err();
        assert!(matches!(error, PublishError::Returned { .. }), "{error}");
        bench.management.delete("exchanges", &missing).await;
    })
    .await;
}

#[tokio::test]
async fn headers_that_no_frame_can_hold_are_refused_and_cost_no_other_message() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let large = bench.job(1).with_header("large", "x".repeat(131_000));
        let early = large.validate().unwrap_err();
        // Messages may be stored meanwhile.
        let stored = serde_json::to_string(&[bench.job(0), large, bench.job(2)]).unwrap();
        let results = publisher.publish_all(serde_json::from_str(&stored).unwrap()).await;
        let error = results[1].as_ref().unwrap_err();
        assert_eq!(*error, early);
        assert!(
            matches!(error, PublishError::Invalid { problem, .. } if problem.contains("headers must have at most"))
        );
        assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    })
    .await;
}

#[tokio::test]
async fn without_a_broker_publishing_says_so_within_seconds() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&Broker::new("amqp://127.0.0.1:1/", "test").unwrap());
        let results = publisher.publish_all(vec![bench.job(1), bench.job(2)]).await;
        for (number, result) in (1..).zip(results) {
            let error = result.unwrap_err();
            assert!(matches!(&error, PublishError::NotConnected { .. }), "{error:?}");
            assert_eq!(error.message_id(), format!("{}-{number}", bench.name));
            assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closed_publisher_takes_nothing_and_a_dropped_one_ends_its_connection() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(1)).await.unwrap();
        publisher.close().await;
        assert_eq!(*publisher.state().borrow(), ConnectionState::Closed);
        let error = publisher.publish(bench.job(2)).await.unwrap_err();
        assert!(matches!(error, PublishError::NotConnected { .. }), "{error:?}");

        let publisher = Publisher::start(&bench.broker);
        let clone = publisher.clone();
        publisher.publish(bench.job(3)).await.unwrap();
        let mut state = publisher.state();
        drop(publisher);
        clone.publish(bench.job(4)).await.unwrap();
        drop(clone);
        wait_for(&mut state, "the end", |state| *state == ConnectionState::Closed).await;

        let away = Publisher::start(&Broker::new("amqp://127.0.0.1:1/", "test").unwrap());
        let mut state = away.state();
        drop(away);
        wait_for(&mut state, "the end of one that never connected", |state| *state == ConnectionState::Closed).await;
    })
    .await;
}

#[tokio::test]
async fn confirms_are_pipelined() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(0)).await.unwrap();
        let one_by_one = std::time::Instant::now();
        for number in 0..20 {
            publisher.publish(bench.job(number)).await.unwrap();
        }
        let one = one_by_one.elapsed() / 20;
        let together = std::time::Instant::now();
        let results = publisher.publish_all(bench.jobs(0..1000)).await;
        let each = together.elapsed() / 1000;
        assert!(results.iter().all(Result::is_ok));
        assert!(each * 3 < one, "{each:?} each together, {one:?} one by one");
    })
    .await;
}

#[tokio::test]
async fn a_delayed_job_comes_first_when_its_delay_is_over_and_has_all_its_attempts() {
    bench(&[300, 60_000], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(0)).await.unwrap();
        heard.next().await;
        let started = tokio::time::Instant::now();
        let soon = bench.job(1).with_delay(&bench.topology, Duration::from_millis(250));
        let later = bench.job(2).with_delay(&bench.topology, Duration::from_secs(1));
        for result in publisher.publish_all(vec![soon, later]).await {
            result.unwrap();
        }
        let (job, delivery, at) = heard.next().await;
        assert_eq!((job.number, delivery.attempt, delivery.parked_reason), (1, 1, None));
        assert!(at - started >= Duration::from_millis(300), "{:?}", at - started);
        assert_eq!(bench.ready(&bench.topology.retry_queue(Duration::from_secs(60))).await, 1);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_delay_without_a_queue_and_a_reserved_header_are_refused_by_name() {
    bench(&[300], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let messages = vec![
            bench.job(1).with_delay(&bench.topology, Duration::from_secs(1)),
            bench.job(2).with_header("x-match", "all"),
            bench.job(3).with_header("attempt", "7"),
            bench.job(4),
        ];
        let texts = [
            "delay must be at most 300ms, the longest retry queue's (got 1s)",
            r#"header "x-match""#,
            r#"header "attempt""#,
        ];
        let results = publisher.publish_all(messages).await;
        for (result, text) in results.iter().zip(texts) {
            let error = result.as_ref().unwrap_err();
            assert!(matches!(error, PublishError::Invalid { .. }) && error.to_string().contains(text), "{error}");
        }
        assert!(results[3].is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_job_of_high_priority_overtakes_others_where_the_broker_knows_priorities() {
    bench(&[100], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let mut messages = bench.jobs(0..30);
        messages.push(bench.job(30).with_high_priority());
        for result in publisher.publish_all(messages).await {
            result.unwrap();
        }
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.attempt {
            1 if delivery.message_id.ends_with("-30") => Outcome::Retry { reason: "keeps its priority".to_owned() },
            _ => Outcome::Done,
        });
        let worker = Running::start(bench.worker().concurrency(1).register(handler)).await;
        let mut numbers = Vec::new();
        for _ in 0..32 {
            numbers.push(heard.next().await.0.number);
        }
        worker.stop().await;
        let place = numbers.iter().position(|number| *number == 30).unwrap();
        let expected = if bench.management.major_version().await >= 4 { 0..3 } else { 30..31 };
        assert!(expected.contains(&place), "{numbers:?}");
    })
    .await;
}

#[tokio::test]
async fn a_foreign_payload_is_published_as_it_is() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        let payload = vec![0, 159, 146, 150];
        publisher.publish(Message::new(&bench.topology, "raw", "raw-1", payload)).await.unwrap();
        let message =
            eventually("the message", async || bench.management.get_messages(&bench.name, 1).await.pop()).await;
        assert_eq!(
            (message["payload"].as_str(), message["payload_encoding"].as_str()),
            (Some("AJ+Slg=="), Some("base64"))
        );
    })
    .await;
}
