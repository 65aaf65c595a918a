//! `clawback queues`: declare the queues on the broker, and look at them.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::output::table;
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
        let mut shown = table(["QUEUE", "MESSAGES", "CONSUMERS"]);
        for queue in &found {
            let messages = if queue.exists { queue.messages.to_string() } else { "missing".to_owned() };
            shown.add_row([queue.name.clone(), messages, queue.consumers.to_string()]);
        }
        writeln!(std::io::stdout().lock(), "{}", shown.trim_fmt())?;
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
