//! Other job queues at the same work: benches/peers/NAME.py enqueues its jobs, then NAME's own worker drains them.

use anyhow::Result;
use sea_orm::sqlx::PgPool;
use tokio::process::Command;

use crate::{
    children::Child,
    database::{self, MEASURED},
    place::{Place, variable},
};

/// A framework whose jobs are in benches/peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// Of Python.
    worker: &'static [&'static str],
}

/// Sixteen jobs at a time each, as `clawback worker`.
pub(crate) const PEERS: [Peer; 2] = [
    Peer {
        name: "dramatiq",
        table: "dramatiq_jobs",
        worker: &["-m", "dramatiq", "dramatiq_jobs", "--processes", "2", "--threads", "8"],
    },
    Peer {
        name: "celery",
        table: "celery_jobs",
        worker: &["-m", "celery", "-A", "celery_jobs", "worker", "--concurrency", "16"],
    },
];

impl Peer {
    pub(crate) fn transfer_id(self, number: u32) -> String {
        format!("tr_{}{number:08}", self.name)
    }

    /// Enqueues `count` jobs, without a worker.
    ///
    /// # Errors
    /// When enqueueing fails.
    pub(crate) async fn prepare(self, place: &Place, db: &PgPool, count: u32) -> Result<()> {
        database::make_jobs(db, self.table, count).await?;
        let (script, count) = (format!("{}.py", self.table), count.to_string());
        Child::start(place, self.name, &mut self.python(place, &[&script, &count])?)?.finish().await
    }

    /// Starts its worker.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn start(self, place: &Place) -> Result<Child> {
        Child::start(place, self.name, &mut self.python(place, self.worker)?)
    }

    fn python(self, place: &Place, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(variable("BENCH_PYTHON")?);
        command
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("BENCH_DATABASE_URL", place.database_url_of(MEASURED, MEASURED)?)
            .env("BENCH_STRIPE", place.simulator_url());
        Ok(command)
    }
}
