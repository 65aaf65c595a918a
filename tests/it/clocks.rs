//! Processes whose machines' clocks are wrong: the database's clock decides.

use chrono::{DateTime, TimeDelta, Utc};

use crate::support::{Backend, Process, TestApp, free_address, two_sellers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_ahead_and_a_day_behind_work_together_by_the_clock_of_the_database() {
    TestApp::run(Backend::Postgres, async |mut app: TestApp| {
        app.stop().await;
        let address = free_address();
        app.base_url = format!("http://{address}");
        let with_clock = |role, more: &[(&str, &str)], clock| {
            let faked = [("LD_PRELOAD", faketime()), ("FAKETIME", clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
            Process::start(role, &app.settings_with(&[more, &faked].concat()))
        };
        let serve = with_clock("serve", &[("HTTP_ADDR", &address)], "+30h");
        let worker = with_clock("worker", &[], "-30h");
        app.is_up().await;
        assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
        // Signed now: a webhook that is 30 hours old would be refused.
        app.refund_of(10_000, 1).await;
        app.transfer_becomes(0, "reversed").await;
        app.transfer_becomes(1, "reversed").await;
        assert_eq!((serve.terminate().await, worker.terminate().await), (Some(0), Some(0)));
        assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));

        let times = [
            ("calls", "created_at"),
            ("calls", "updated_at"),
            ("calls", "requested_at"),
            ("calls", "generation_started_at"),
            ("claims", "created_at"),
            ("reversals", "updated_at"),
            ("webhook_events", "received_at"),
            ("outbox", "published_at"),
            ("history", "at"),
        ];
        for (table, column) in times {
            let rows =
                app.db.query(&format!("SELECT min({column}) AS first, max({column}) AS last FROM {table}")).await;
            for time in ["first", "last"].map(|name| rows[0][name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap())
            {
                assert!((Utc::now() - time).abs() < TimeDelta::minutes(10), "{table}.{column}: {time}");
            }
        }
    })
    .await;
}

/// The library that makes a program's clock wrong; `./dev test` installs it.
fn faketime() -> &'static str {
    let places = ["x86_64-linux-gnu/faketime", "aarch64-linux-gnu/faketime", "faketime"];
    let found = places.map(|place| format!("/usr/lib/{place}/libfaketime.so.1"));
    let found = found.into_iter().find(|file| std::path::Path::new(file).exists());
    found.expect("libfaketime is not installed: run the tests with `./dev test`").leak()
}
