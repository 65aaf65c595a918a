//! Works on started operations, in every process that runs: the ledger's leases leave each operation to one of them.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::FutureExt;
use queues::ParkingError;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{JobTarget, Operator};
use crate::ledger::{CallKind, Note};

/// Between two looks for something to do: others may have started it.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub async fn work_on_operations(operator: Operator, stop: CancellationToken) {
    let this_process = Uuid::new_v4();
    let mut is_failing = false;
    let messages = operator.clone();
    let discard = move |ids: Vec<Uuid>, note: Note| {
        let (operator, runtime) = (messages.clone(), Handle::current());
        // On a thread of its own: the compiler can't see that these futures may change threads.
        let done = spawn_blocking(move || runtime.block_on(operator.discard_about(&ids, &note)));
        async move { done.await.map_err(|crashed| crashed.to_string())?.map_err(|problem| problem.to_string()) }.boxed()
    };
    loop {
        // A batch that is cut off is done later, or was committed: its rows say which.
        let worked = tokio::select! {
            () = stop.cancelled() => return,
            worked = operator.ledger.work_on_operations(this_process, &discard) => worked,
        };
        let there_is_more = match worked {
            Ok(there_is_more) => {
                is_failing = false;
                there_is_more
            }
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "operations can't be worked on; trying again every second");
                }
                is_failing = true;
                false
            }
        };
        if !there_is_more {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

impl Operator {
    /// Throws away the parked messages about these reversals. The rows stay as they are.
    ///
    /// # Errors
    /// [`ParkingError`]: some may still be there.
    async fn discard_about(&self, ids: &[Uuid], note: &Note) -> Result<(), ParkingError> {
        let targets: HashSet<JobTarget> = ids.iter().map(|id| JobTarget { kind: CallKind::Reverse, id: *id }).collect();
        let stale = self.messages_about(&targets).await;
        match self.take_away(stale, &format!("{}: {}", note.actor, note.reason)).await.problem {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}
