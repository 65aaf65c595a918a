//! `clawback queues`: declare the queues on the broker, and look at them.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::{app, worker};

#[derive(Debug, Subcommand)]
pub(super) enum Queues {
    /// Declare the exchange and the queues; those that are there already must be as needed
    Declare,
    /// Show each queue with its messages and consumers
    Status,
    /// Like status; exit code 1 if a queue is missing or nobody consumes the work queue
    Verify,
}

impl Queues {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let broker = app::broker(config, "clawback queues")?;
        let topology = worker::reversal_topology(&app::retry_policy(config))?;
        if matches!(self, Self::Declare) {
            broker.declare(&topology).await.context("the queues could not be declared")?;
        }
        let found = broker.verify(&topology).await.context("the broker could not be asked; check AMQP_URL")?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:<32} {:>10} {:>10}", "QUEUE", "MESSAGES", "CONSUMERS")?;
        for queue in &found {
            match queue.exists {
                true => writeln!(out, "{:<32} {:>10} {:>10}", queue.name, queue.messages, queue.consumers)?,
                false => writeln!(out, "{:<32} {:>10}", queue.name, "missing")?,
            }
        }
        if matches!(self, Self::Verify) {
            if let Some(missing) = found.iter().find(|queue| !queue.exists) {
                bail!("queue {} is missing; declare it with `clawback queues declare`", missing.name);
            }
            if found.iter().any(|queue| queue.name == topology.queue() && queue.consumers == 0) {
                bail!("nobody consumes {}; start `clawback worker`", topology.queue());
            }
        }
        Ok(())
    }
}
