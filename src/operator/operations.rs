//! Works on started operations, in every process that runs: the ledger's leases leave each operation to one of them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::Ledger;

/// Between two looks for something to do.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub async fn work_on_operations(ledger: Ledger, stop: CancellationToken) {
    let this_process = Uuid::new_v4();
    let mut is_failing = false;
    loop {
        // A batch that is cut off is done later, or was committed: its rows say which.
        let worked = tokio::select! {
            () = stop.cancelled() => return,
            worked = ledger.work_on_operations(this_process) => worked,
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
