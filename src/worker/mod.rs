//! The jobs: one file each, built on the queue library.
//!
//! A job converges on its row: it does what the row still needs, so that a duplicate, early or late delivery is harmless.
//! Jobs read and report through the ledger and call Stripe; they never write a status themselves.

mod context;
mod create_transfer;
mod decision;
mod kill_switch;
mod limiter;
mod recent_calls;
mod reconcile;
mod reporting;
mod reverse_transfer;
mod waiting;

use queues::{RetryPolicy, Topology, TopologyError};

pub use context::{JobContext, Timing};
pub use create_transfer::CreateTransfer;
pub use kill_switch::{KillSwitch, Switch};
pub use limiter::Limiter;
pub use reverse_transfer::ReverseTransfer;

use crate::ledger::{CREATE_TRANSFER, CreateTransferJob, REVERSE_TRANSFER, ReverseTransferJob};

/// The exchange that all jobs go through.
const EXCHANGE: &str = "clawback.jobs";
/// The work queue of reversals; the others are named after it.
const REVERSALS: &str = "reversals";
/// The work queue of transfers to create; the others are named after it.
const TRANSFERS: &str = "transfers";

impl queues::Job for ReverseTransferJob {
    const KIND: &'static str = REVERSE_TRANSFER;
}

impl queues::Job for CreateTransferJob {
    const KIND: &'static str = CREATE_TRANSFER;
}

/// The queues of the reversals: one for each delay that `policy` can ask for, the longest always among them.
///
/// # Errors
/// [`TopologyError`] for delays that no queue can have.
pub fn reversal_topology(policy: &RetryPolicy) -> Result<Topology, TopologyError> {
    topology(REVERSALS, policy)
}

/// The queues of the transfers to create, made like those of the reversals.
///
/// # Errors
/// [`TopologyError`] for delays that no queue can have.
pub fn transfer_topology(policy: &RetryPolicy) -> Result<Topology, TopologyError> {
    topology(TRANSFERS, policy)
}

fn topology(queue: &str, policy: &RetryPolicy) -> Result<Topology, TopologyError> {
    let longest = policy.delay(u32::MAX);
    Topology::new(EXCHANGE, queue, policy.delays().into_iter().chain([longest]))
}
