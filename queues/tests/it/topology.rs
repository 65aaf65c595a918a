//! Declaring and verifying.

use crate::support::{amqp_url, bench};
use queues::{Broker, BrokerError, Publisher, Topology, url};
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
        let statuses = bench.broker.queue_statuses(&bench.topology).await.unwrap();
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
    let refused = Broker::new(wrong.as_str(), "test").unwrap().declare(&topology).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Refused { .. }), "{refused:?}");
    // Port 1 of the loopback answers nobody.
    let away = Broker::new("amqp://u:hunter2@127.0.0.1:1/", "test").unwrap().declare(&topology).await.unwrap_err();
    assert!(matches!(away, BrokerError::Unreachable { .. }), "{away:?}");
    for error in [refused, away] {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_check_finds_nothing_where_everything_is_as_wanted() {
    bench(&[500, 60_000], async |bench| {
        let by_amqp = bench.broker.check(&bench.topology).await.unwrap();
        assert_eq!(by_amqp.differences, []);
        let report = bench.broker.check_with_management(&bench.topology, &bench.management.url()).await.unwrap();
        assert_eq!(report.differences, []);
        assert!(report.broker_version.as_ref().unwrap().contains('.'));
        assert_eq!(by_amqp.broker_version, report.broker_version);
        let mut without_user = bench.management.url();
        without_user.set_username("").unwrap();
        without_user.set_password(None).unwrap();
        let report = bench.broker.check_with_management(&bench.topology, &without_user).await.unwrap();
        assert_eq!(report.differences, [], "the AMQP URL's user is taken");
        assert!(bench.broker.feature_flags(&without_user).await.unwrap()["quorum_queue"]);
        let (mut old, new) = (url::Url::parse(&amqp_url()).unwrap(), amqp_url());
        old.set_password(Some("of-yesterday")).unwrap();
        let renewed = Broker::new(old.as_str(), "renewed").unwrap().with_renewed_url(move || Some(new.clone()));
        assert!(renewed.feature_flags(&without_user).await.unwrap()["quorum_queue"], "the old password was taken");
    })
    .await;
}

#[tokio::test]
async fn a_check_says_queue_by_queue_what_differs_and_changes_nothing() {
    bench(&[500], async |bench| {
        let name = &bench.name;
        let (parked, retry) = (format!("{name}.parked"), format!("{name}.retry.500ms"));
        for queue in [&parked, name, &retry] {
            bench.management.delete("queues", queue).await;
        }
        bench.management.declare(&parked, json!({ "x-queue-type": "classic", "x-expires": 3_600_000 })).await;
        let arguments = json!({
            "x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "elsewhere",
            "x-overflow": "drop-head", "x-message-ttl": 700, "x-max-length": 9,
        });
        bench.management.declare(&retry, arguments).await;

        let by_amqp = bench.broker.check(&bench.topology).await.unwrap();
        let objects: Vec<_> = by_amqp.differences.iter().map(|each| (&each.object, each.property.as_str())).collect();
        let (parked, work, retry) =
            (format!("queue `{parked}`"), format!("queue `{name}`"), format!("queue `{retry}`"));
        assert_eq!(objects, [(&parked, "declaration"), (&work, "existence"), (&retry, "declaration")]);
        assert!(by_amqp.to_string().contains("x-dead-letter-routing-key"), "{by_amqp}");

        let by_http = bench.broker.check_with_management(&bench.topology, &bench.management.url()).await.unwrap();
        let lines: Vec<String> = by_http.differences.iter().map(ToString::to_string).collect();
        let expected = [
            format!("{parked}: x-delivery-limit is nothing, wanted 1000000000"),
            format!("{parked}: x-queue-type is classic, wanted quorum"),
            format!("{parked}: x-expires is 3600000, wanted nothing"),
            format!("{work}: existence is nothing, wanted declared"),
            format!("{retry}: x-dead-letter-routing-key is elsewhere, wanted {name}"),
            format!("{retry}: x-dead-letter-strategy is nothing, wanted at-least-once"),
            format!("{retry}: x-message-ttl is 700, wanted 500"),
            format!("{retry}: x-overflow is drop-head, wanted reject-publish"),
            format!("{retry}: x-max-length is 9, wanted nothing"),
            format!("binding `{name}`: existence is nothing, wanted declared"),
        ];
        assert_eq!(lines, expected);
        assert!(
            !bench.broker.queue_statuses(&bench.topology).await.unwrap()[1].exists,
            "the check has declared a queue"
        );

        bench.management.delete("exchanges", bench.topology.exchange()).await;
        let by_amqp = bench.broker.check(&bench.topology).await.unwrap();
        assert!(by_amqp.to_string().contains(&format!("exchange `{name}.jobs`: existence")), "{by_amqp}");
        let by_http = bench.broker.check_with_management(&bench.topology, &bench.management.url()).await.unwrap();
        assert!(by_http.to_string().contains(&format!("exchange `{name}.jobs`: existence")), "{by_http}");
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_would_expire_parked_jobs_is_found() {
    bench(&[500], async |bench| {
        let queue = bench.topology.parked_queue();
        let definition = json!({ "message-ttl": 86_400_000, "delivery-limit": 2_000_000_000 });
        bench.management.set_policy(&queue, definition).await;
        let expected = format!("queue `{queue}`: policy message-ttl is 86400000, wanted nothing\n");
        // The broker applies a policy a little after it has taken it.
        crate::support::eventually("the policy", async || {
            let url = bench.management.url();
            let report = bench.broker.check_with_management(&bench.topology, &url).await.unwrap();
            (report.to_string() == expected).then_some(())
        })
        .await;
        bench.management.delete("policies", &queue).await;
    })
    .await;
}

#[tokio::test]
async fn a_management_api_that_does_not_answer_is_explained_without_its_password() {
    bench(&[500], async |bench| {
        let away = url::Url::parse("http://ann:hunter2@127.0.0.1:1").unwrap();
        let mut wrong = bench.management.url();
        wrong.set_password(Some("hunter2")).unwrap();
        for (url, part) in [(away, "cannot be reached"), (wrong, "answered 401")] {
            let error = bench.broker.check_with_management(&bench.topology, &url).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        }
    })
    .await;
}
