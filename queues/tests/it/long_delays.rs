//! Delays that no retry queue was declared for.

use crate::support::{Count, Running, bench_with, publish, scripted};
use chrono::{DateTime, TimeDelta, Utc};
use queues::{Outcome, PublishError, Publisher};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// 4 s: the shortest delay that passes through two queues has three seconds.
#[tokio::test]
async fn a_delay_that_was_not_declared_is_kept_to_the_second_when_published_and_when_snoozed() {
    let shape = |topology: queues::Topology| topology.with_long_delays().unwrap().partitioned(2).unwrap();
    bench_with(&[60_000], shape, async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.message_id.ends_with("-1") {
            true => Outcome::Done,
            false => Outcome::Snooze { delay: SECOND, reason: "not yet".to_owned() },
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        let start = Instant::now();
        publish(&bench, bench.job(1).with_delay(&bench.topology, Duration::from_millis(2_500))).await;
        publish(&bench, bench.job(2)).await;
        // The second one passes through one queue again and again, which the broker must not take for a cycle.
        let mut snoozed = Vec::new();
        let delayed = loop {
            let (job, delivery, at) = heard.next().await;
            assert_eq!(delivery.attempt, 1);
            match job.number {
                1 => break at - start,
                _ => snoozed.push(at - start),
            }
        };
        worker.stop().await;
        assert!((SECOND * 3..SECOND * 4).contains(&delayed), "{delayed:?}");
        assert!(snoozed.len() >= 3, "{snoozed:?}");
        assert!(snoozed.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{snoozed:?}");
    })
    .await;
}

#[tokio::test]
async fn a_delay_of_a_year_waits_in_a_queue_and_says_when_it_is_over_and_one_without_end_is_refused() {
    let shape = |topology: queues::Topology| topology.with_long_delays().unwrap();
    bench_with(&[60_000], shape, async |bench| {
        let year = Utc::now() + TimeDelta::days(365);
        publish(&bench, bench.job(1).with_delay(&bench.topology, DAY * 365)).await;
        let queue = format!("{}.delay.4194304s", bench.topology.exchange());
        assert_eq!(bench.ready(&queue).await, 1);
        let waiting = &bench.management.get_messages(&queue, 1).await[0];
        let due_at = waiting["properties"]["headers"]["due-at"].as_str().unwrap();
        let due_at = DateTime::parse_from_rfc3339(due_at).unwrap().to_utc();
        assert!((due_at - year).abs() < TimeDelta::seconds(30), "{due_at}");
        let endless = bench.job(2).with_delay(&bench.topology, Duration::MAX);
        let refused = Publisher::start(&bench.broker).publish(endless).await.unwrap_err();
        assert!(matches!(&refused, PublishError::Invalid { .. }), "{refused}");
        let report = bench.broker.check_with_management(&bench.topology, &bench.management.url()).await.unwrap();
        assert_eq!(report.differences, [], "{report}");
    })
    .await;
}
