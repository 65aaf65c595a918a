//! What the tests share: services, a database and a virtual host for each test, and Clawback running on them.

mod app;
mod browser;
mod certificates;
mod command;
mod database;
mod http;
mod process;
mod redacted;
mod vhost;

pub(crate) use app::{HYPERSWITCH_KEY, TestApp};
pub(crate) use browser::{Browser, Look};
pub(crate) use certificates::{Authority, text};
pub(crate) use command::{Finished, clawback, clawback_reading, command, settings};
pub(crate) use database::{Backend, Db, count, rows};
pub(crate) use http::{
    hyperswitch_event, refund_event, refund_webhook, sign, sign_hyperswitch, to_create, two_sellers,
};
pub(crate) use process::Process;
pub(crate) use redacted::redacted;
pub(crate) use vhost::Vhost;

use std::fs::File;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

/// Adds the rare places of the program that are reached (`src/reached.rs`) to the file that `REACHED` names: `./dev check` wants all of them.
pub(crate) fn list_what_is_reached() {
    let Ok(path) = std::env::var("REACHED") else { return };
    let file = File::options().create(true).append(true).open(path).unwrap();
    let listed =
        tracing_subscriber::fmt().with_env_filter("reached=trace").with_ansi(false).with_writer(Mutex::new(file));
    // Another test of this process may do so already.
    let _ = listed.try_init();
}

/// How long anything in a test may take. Long, because machines are slow; reached only by what never happens.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// For tests that count calls or hold locks: on a slow machine a sweeper would come in between.
pub(crate) const NO_SWEEPER: (&str, &str) = ("REVERSAL_CHECK_INTERVAL", "1h");

/// The value of an environment variable that `./dev test` sets.
pub(crate) fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `./dev test`"))
}

/// An address that was free a moment ago, for a process of its own.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A client whose requests end: a test that hangs is to say where.
pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder().timeout(DEADLINE).build().unwrap()
}

/// Asks `look` again and again until it gives a value, and panics with `what` when it takes too long.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("it never happened: {what}"))
}

/// Makes each `async fn name(app: TestApp)` a test on SQLite and one on PostgreSQL.
macro_rules! both_databases {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::support::TestApp::run($crate::support::Backend::Sqlite, super::$name).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::support::TestApp::run($crate::support::Backend::Postgres, super::$name).await;
            })*
        }
    };
}
pub(crate) use both_databases;
