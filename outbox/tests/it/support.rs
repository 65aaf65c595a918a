//! A database of each kind, a queue, and a way to die anywhere.

#[path = "../../../queues/tests/support/eventually.rs"]
mod eventually;
#[path = "../../../queues/tests/faults/support/own_broker.rs"]
#[expect(dead_code, reason = "no test here stops a broker")]
mod own_broker;

pub(crate) use {eventually::eventually, own_broker::OwnBroker};

use outbox::{
    Batch, Outbox, OutboxJob, Pool, Relay,
    queues::{Delivery, Job, Message, Outcome, Publisher, RetryPolicy, testing::TestQueue},
    sqlx::{
        self, Connection, PgConnection, PgPool, Row, SqlitePool,
        postgres::PgConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode},
    },
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    str::FromStr,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

/// A database with the outbox's tables.
pub(crate) struct Place {
    pub(crate) pool: Pool,
    pub(crate) outbox: Outbox,
    drop: Option<(PgConnectOptions, String)>,
    _directory: Option<tempfile::TempDir>,
}

/// Runs each test on both databases.
macro_rules! on_both_databases {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $name() { $crate::support::run($crate::support::Place::sqlite().await, super::$name).await; })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $name() { $crate::support::run($crate::support::Place::postgres().await, super::$name).await; })*
        }
    };
}
pub(crate) use on_both_databases;

/// The same code for the pool of either database.
macro_rules! with_pool {
    ($place:expr, |$pool:ident| $body:expr) => {
        match &$place.pool {
            outbox::Pool::Postgres($pool) => $body,
            outbox::Pool::Sqlite($pool) => $body,
            _ => unreachable!(),
        }
    };
}
pub(crate) use with_pool;

pub(crate) async fn run(place: Place, test: impl AsyncFnOnce(&Place)) {
    test(&place).await;
    if let (Pool::Postgres(pool), Some((options, name))) = (&place.pool, &place.drop) {
        pool.close().await;
        let mut connection = PgConnection::connect_with(options).await.unwrap();
        let statement = sqlx::AssertSqlSafe(format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `./dev test`"))
}

impl Place {
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("outbox.db")).create_if_missing(true);
        let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
        Self::new(pool.into(), None, Some(directory)).await
    }

    pub(crate) async fn postgres() -> Self {
        let options = PgConnectOptions::from_str(&required("DATABASE_URL")).unwrap();
        let name = format!("outbox-{}", Uuid::now_v7());
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        let pool = PgPool::connect_with(options.clone().database(&name)).await.unwrap();
        Self::new(pool.into(), Some((options, name)), None).await
    }

    async fn new(pool: Pool, drop: Option<(PgConnectOptions, String)>, directory: Option<tempfile::TempDir>) -> Self {
        pool.create_tables().await.unwrap();
        // Again: it makes what is missing alone.
        pool.create_tables().await.unwrap();
        Self { pool, outbox: Outbox::new(), drop, _directory: directory }
    }

    /// Commits jobs with these numbers.
    pub(crate) async fn enqueue(&self, queue: &TestQueue, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let message = message(queue, number);
            with_pool!(self, |pool| {
                let mut txn = pool.begin().await.unwrap();
                self.outbox.enqueue(&mut *txn, message).await.unwrap();
                txn.commit().await.unwrap();
            });
        }
        self.outbox.wake();
    }

    /// Writes jobs in one transaction, which is committed or rolled back.
    pub(crate) async fn write<J: Into<OutboxJob>>(
        &self,
        batch: &mut Batch,
        jobs: impl IntoIterator<Item = J>,
        commit: bool,
    ) {
        with_pool!(self, |pool| {
            let mut txn = pool.begin().await.unwrap();
            for job in jobs {
                batch.enqueue(&mut *txn, job).await.unwrap();
            }
            if commit { txn.commit().await.unwrap() } else { txn.rollback().await.unwrap() }
        });
    }

    /// The first column of the first row, a number.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        with_pool!(self, |pool| sqlx::query(query).fetch_one(pool).await.unwrap().get(0))
    }

    pub(crate) async fn execute(&self, statement: &'static str) {
        with_pool!(self, |pool| drop(sqlx::query(statement).execute(pool).await.unwrap()));
    }

    /// How many jobs are not published.
    pub(crate) async fn unpublished(&self) -> i64 {
        self.count_where("published_at IS NULL").await
    }

    /// How many jobs there are of some.
    pub(crate) async fn count_where(&self, condition: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM queue_outbox WHERE {condition}"));
        with_pool!(self, |pool| sqlx::query(query).fetch_one(pool).await.unwrap().get(0))
    }

    pub(crate) fn relay(&self, queue: &TestQueue) -> Relay {
        Relay::new(&self.outbox, self.pool.clone(), Publisher::start(queue.broker()))
            .declare(queue.broker(), [queue.topology().clone()])
    }

    /// Runs a relay until everything is published.
    pub(crate) async fn relay_all(&self, relay: Relay) {
        let done = eventually("everything published", async || (self.unpublished().await == 0).then_some(()));
        relay.run(done).await.unwrap();
    }
}

/// A job that carries a number.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Count {
    pub(crate) number: u32,
}

impl Job for Count {
    const KIND: &'static str = "count";
}

pub(crate) async fn queue() -> TestQueue {
    let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(1), 1);
    TestQueue::declare(&required("AMQP_URL"), policy).await.unwrap()
}

pub(crate) fn message(queue: &TestQueue, number: u32) -> Message {
    Message::job(queue.topology(), format!("job-{number}"), &Count { number }).unwrap()
}

/// What a worker on the queue was given.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<(u32, Delivery)>>>);

impl Heard {
    pub(crate) fn start(queue: &TestQueue) -> Self {
        let heard = Self::default();
        let jobs = heard.clone();
        queue.start(queue.worker().register(move |job: Count, delivery: Delivery| {
            jobs.0.lock().unwrap().push((job.number, delivery));
            std::future::ready(Outcome::Done)
        }));
        heard
    }

    /// The jobs, once there are as many different ones, and nothing is left in the queue.
    pub(crate) async fn all(&self, queue: &TestQueue, different: usize) -> Vec<(u32, Delivery)> {
        eventually("all jobs", async || {
            let mut numbers: Vec<u32> = self.0.lock().unwrap().iter().map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let statuses = queue.broker().queue_statuses(queue.topology()).await.unwrap();
            (numbers.len() >= different && statuses.iter().all(|status| status.messages == 0)).then_some(())
        })
        .await;
        self.0.lock().unwrap().clone()
    }
}

/// Polls a future so often, and then drops it wherever it is: what a killed process does to its database and its broker.
pub(crate) async fn die_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
