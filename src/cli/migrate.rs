//! `clawback migrate`: applies, reverts and lists the database's migrations.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Subcommand;

use super::terminal::output;
use crate::app;
use crate::config::{AppEnv, Config};

#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply all pending migrations; several processes may do so at once
    Up,
    /// Revert the newest migrations AND DELETE THE DATA in their tables (in production only with --delete-data)
    Down {
        /// How many
        #[arg(long, default_value_t = 1)]
        steps: u32,
        /// Confirm that production's data may be deleted
        #[arg(long)]
        delete_data: bool,
    },
    /// List the migrations, applied and pending; exit code 1 if any is pending
    Status,
}

impl Migrate {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = match self {
            Self::Up => app::create_ledger(config).await?,
            Self::Down { .. } | Self::Status => app::connect_ledger(config).await?,
        };
        let mut out = output();
        match self {
            Self::Up => writeln!(out, "{} migrations applied", ledger.migrate_up().await?)?,
            Self::Down { delete_data: false, .. } if config.app_env == AppEnv::Production => {
                bail!("this would delete the data in the dropped tables; add --delete-data to confirm")
            }
            Self::Down { steps, .. } => {
                ledger.migrate_down(steps).await?;
                writeln!(out, "{steps} migrations reverted")?;
            }
            Self::Status => {
                let migrations = ledger.migrations().await?;
                for (name, applied) in &migrations {
                    writeln!(out, "{}  {name}", if *applied { "applied" } else { "pending" })?;
                }
                if migrations.iter().any(|(_, applied)| !applied) {
                    bail!("migrations are pending; run `clawback migrate up`");
                }
            }
        }
        Ok(())
    }
}
