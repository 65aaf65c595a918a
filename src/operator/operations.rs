//! Works on started operations, in every process that runs: the ledger's leases leave each operation to one of them. And drops
//! the parked messages that operations and requests to the API have superseded: only the broker's connections reach those.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use queues::{ParkedJob, ParkingError, Selection, Verdict};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{JobTarget, Operator};
use crate::ledger::{CallKind, Left, Note};

/// Between two looks at an operation that is spread over time, or that another process works on.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks for an operation when nothing tells of one: the process's heartbeat does, within seconds.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// How long superseded messages stay: what supersedes one is often followed by more of it.
const SETTLING: Duration = Duration::from_secs(3);

/// Runs until `stop`.
pub async fn work_on_operations(operator: Operator, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = drop_what_is_superseded(operator.clone(), stop.clone()) => {}
        () = work(operator, stop.clone()) => {}
    }
}

/// What can't be dropped now does no harm, and is dropped the next time.
async fn drop_what_is_superseded(operator: Operator, stop: CancellationToken) {
    loop {
        operator.ledger.messages_superseded().await;
        tokio::time::sleep(SETTLING).await;
        let (operator, runtime, stop) = (operator.clone(), Handle::current(), stop.clone());
        // As below. The thread outlives this future, and must not hold up the end of the process.
        let dropping = move || runtime.block_on(stop.run_until_cancelled(operator.drop_superseded()));
        let dropped = spawn_blocking(dropping).await;
        if let Err(crashed) = dropped {
            tracing::error!(error = %crashed, "superseded messages stay parked; they do no harm");
        }
    }
}

async fn work(operator: Operator, stop: CancellationToken) {
    let this_process = Uuid::new_v4();
    let mut is_failing = false;
    let messages = operator.clone();
    let discard = move |rows: HashMap<Uuid, DateTime<Utc>>, note: Note| {
        let (operator, runtime) = (messages.clone(), Handle::current());
        // On a thread of its own: the compiler can't see that these futures may change threads.
        let done = spawn_blocking(move || runtime.block_on(operator.discard_about(&rows, &note)));
        async move { done.await.map_err(|crashed| crashed.to_string())?.map_err(|problem| problem.to_string()) }.boxed()
    };
    loop {
        // A batch that is cut off is done later, or was committed: its rows say which.
        let worked = tokio::select! {
            () = stop.cancelled() => return,
            worked = operator.ledger.work_on_operations(this_process, &discard) => worked,
        };
        let pause = match &worked {
            Ok(Left::More) => Duration::ZERO,
            Ok(Left::Nothing) => LONG_PAUSE,
            Ok(Left::Later) | Err(_) => PAUSE,
        };
        if let (Err(error), false) = (&worked, is_failing) {
            tracing::warn!(%error, "operations can't be worked on; trying again every second");
        }
        is_failing = worked.is_err();
        tokio::select! {
            () = stop.cancelled() => return,
            () = operator.ledger.operation_running() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Operator {
    /// Throws away the parked messages about these reversals that were parked before the time beside each, in one pass. The rows
    /// stay as they are.
    ///
    /// # Errors
    /// [`ParkingError`]: some may still be there.
    async fn discard_about(&self, rows: &HashMap<Uuid, DateTime<Utc>>, note: &Note) -> Result<(), ParkingError> {
        let is_meant = |job: &ParkedJob| {
            let target = JobTarget::of(job).filter(|target| target.kind == CallKind::Reverse);
            let done_at = target.and_then(|target| rows.get(&target.id));
            done_at.is_some_and(|done_at| job.parked_at.is_none_or(|parked_at| parked_at <= *done_at))
        };
        let judge = async |job: &ParkedJob| match is_meant(job) {
            true => Verdict::Discard { reason: format!("{}: {}", note.actor, note.reason) },
            false => Verdict::Keep,
        };
        let queue = CallKind::Reverse.queue();
        let Some(topology) = self.topologies.iter().find(|topology| topology.queue() == queue) else { return Ok(()) };
        match self.parking(topology).judge(&Selection::all(), Duration::ZERO, judge).await {
            Ok(_) | Err(ParkingError::NoQueue { .. }) => Ok(()),
            Err(problem) => Err(problem),
        }
    }
}
