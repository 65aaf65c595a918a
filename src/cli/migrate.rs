//! `clawback migrate`: the database's schema.

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
    /// Take back the newest migrations, AND THE DATA in their tables (in production only with --delete-data)
    Down {
        /// How many
        #[arg(long, default_value_t = 1)]
        steps: u32,
        /// Yes, delete production's data
        #[arg(long)]
        delete_data: bool,
    },
    /// List the migrations and say which are applied; exit code 1 if any is pending
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
                bail!("this deletes the data in the tables that go; say --delete-data if that is meant")
            }
            Self::Down { steps, .. } => {
                ledger.migrate_down(steps).await?;
                writeln!(out, "{steps} migrations taken back")?;
            }
            Self::Status => {
                let migrations = ledger.migrations().await?;
                for (name, applied) in &migrations {
                    writeln!(out, "{}  {name}", if *applied { "applied" } else { "pending" })?;
                }
                if migrations.iter().any(|(_, applied)| !applied) {
                    bail!("migrations are pending; apply them with `clawback migrate up`");
                }
            }
        }
        Ok(())
    }
}
