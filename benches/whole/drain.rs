//! How fast a backlog becomes rows with the status `reversed`: the same measurement for the program and for all its peers.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sea_orm::sqlx::PgPool;
use serde::Serialize;

use crate::{children::Child, database};

/// Between two looks near the beginning and the end; and in between, where looks would only take time from the work.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(60);

/// From the first job that was seen done to the last one.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Drain {
    pub(crate) jobs: u32,
    pub(crate) seconds: f64,
    pub(crate) jobs_per_second: f64,
}

/// Watches `table` until `count` rows are reversed.
///
/// # Errors
/// When `worker` ends, or no more rows follow.
pub(crate) async fn watch(db: &PgPool, table: &str, count: u32, worker: &mut Child) -> Result<Drain> {
    let mut first = None;
    let (mut last, mut last_rise) = (0, Instant::now());
    loop {
        worker.ensure_running()?;
        let done = database::count(db, table, "reversed").await?;
        let now = Instant::now();
        if done > last {
            (last, last_rise) = (done, now);
        }
        if first.is_none() && done > 0 {
            first = Some((done, now));
        }
        if now - last_rise > PATIENCE {
            bail!("{done} of {count} rows of {table} are reversed, and no more followed within {PATIENCE:?}");
        }
        let Some((done_at_first, since)) = first else {
            tokio::time::sleep(OFTEN).await;
            continue;
        };
        let (jobs, seconds) = (done - done_at_first, (now - since).as_secs_f64());
        let per_second = f64::from(jobs) / seconds.max(f64::EPSILON);
        if done >= count {
            return Ok(Drain { jobs, seconds, jobs_per_second: per_second });
        }
        let almost_done = f64::from(count - done) < per_second * SELDOM.as_secs_f64() * 2.0;
        tokio::time::sleep(if almost_done { OFTEN } else { SELDOM }).await;
    }
}
