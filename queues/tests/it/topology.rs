//! Declaring and verifying.

use crate::support::bench;
use queues::{BrokerError, Publisher, Topology};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn queues_are_declared_with_exactly_the_wanted_arguments() {
    bench(&[500, 60_000], async |bench| {
        let name = &bench.name;
        let dead_lettering = |to: &str| {
            json!({
                "x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": to,
                "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
            })
        };
        let with = |mut arguments: serde_json::Value, key: &str, value: u64| {
            arguments[key] = value.into();
            arguments
        };
        let wanted = [
            (format!("{name}.parked"), json!({ "x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000 })),
            (name.clone(), with(dead_lettering(&format!("{name}.parked")), "x-delivery-limit", 20)),
            (format!("{name}.retry.500ms"), with(dead_lettering(name), "x-message-ttl", 500)),
            (format!("{name}.retry.1m"), with(dead_lettering(name), "x-message-ttl", 60_000)),
        ];
        for (queue, arguments) in wanted {
            let declared = bench.management.queue(&queue).await;
            assert_eq!(declared["arguments"], arguments, "{queue}");
            assert_eq!((&declared["durable"], &declared["type"]), (&json!(true), &json!("quorum")), "{queue}");
        }
        let bindings = bench.management.bindings(name).await;
        let bound = bindings.as_array().unwrap().iter().any(|binding| {
            binding["source"] == bench.topology.exchange() && binding["routing_key"] == bench.name.as_str()
        });
        assert!(bound, "{bindings}");
    })
    .await;
}

#[tokio::test]
async fn declaring_twice_changes_nothing_and_keeps_the_messages() {
    bench(&[500], async |bench| {
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        bench.broker.declare(&bench.topology).await.unwrap();
        assert_eq!(bench.ready(&bench.name).await, 1);
    })
    .await;
}

#[tokio::test]
async fn other_delays_under_the_same_name_meet_no_conflict() {
    bench(&[500], async |bench| {
        let delays = [Duration::from_millis(700)];
        let changed = Topology::new(bench.topology.exchange(), bench.topology.queue(), delays).unwrap();
        bench.broker.declare(&changed).await.unwrap();
        bench.management.delete("queues", &changed.retry_queue(delays[0])).await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_is_declared_otherwise_is_explained() {
    bench(&[500], async |bench| {
        let other = Topology::new(bench.topology.exchange(), bench.topology.queue(), [Duration::from_secs(7)]).unwrap();
        let queue = other.retry_queue(Duration::from_secs(7));
        let arguments = json!({
            "x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": bench.name,
            "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-message-ttl": 9000,
        });
        bench.management.declare(&queue, arguments).await;
        let error = bench.broker.declare(&other).await.unwrap_err();
        bench.management.delete("queues", &queue).await;
        let text = error.to_string();
        assert!(matches!(&error, BrokerError::Mismatch { object, .. } if object.contains(&queue)), "{error:?}");
        for part in ["x-message-ttl", "7000", "9000", "nothing was changed", "use another name"] {
            assert!(text.contains(part), "{part:?} is missing: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn verifying_sees_what_is_missing_and_how_full_the_rest_is() {
    bench(&[500], async |bench| {
        let publisher = Publisher::start(&bench.broker);
        for result in publisher.publish_all(bench.jobs(0..3)).await {
            result.unwrap();
        }
        bench.management.delete("queues", &bench.topology.parked_queue()).await;
        let statuses = bench.broker.verify(&bench.topology).await.unwrap();
        let seen: Vec<_> =
            statuses.iter().map(|status| (status.name.as_str(), status.exists, status.messages)).collect();
        let name = bench.name.as_str();
        let (parked, retry) = (format!("{name}.parked"), format!("{name}.retry.500ms"));
        assert_eq!(seen, [(parked.as_str(), false, 0), (name, true, 3), (retry.as_str(), true, 0)]);
    })
    .await;
}

#[tokio::test]
async fn a_refused_password_is_told_apart_from_a_broker_that_is_away_and_is_never_shown() {
    let url = crate::support::amqp_url();
    let mut wrong = url::Url::parse(&url).unwrap();
    wrong.set_password(Some("hunter2")).unwrap();
    let topology = Topology::new("nowhere", "nothing", [Duration::from_secs(1)]).unwrap();
    let refused = queues::Broker::new(wrong.as_str(), "test").unwrap().declare(&topology).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Refused { .. }), "{refused:?}");
    // Port 1 of the loopback answers nobody.
    let away =
        queues::Broker::new("amqp://u:hunter2@127.0.0.1:1/", "test").unwrap().declare(&topology).await.unwrap_err();
    assert!(matches!(away, BrokerError::Unreachable { .. }), "{away:?}");
    for error in [refused, away] {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
