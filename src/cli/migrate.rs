//! `clawback migrate`: applies, reverts and lists the database's migrations.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;

use super::terminal::output;
use crate::app;
use crate::config::Config;
use crate::ledger::{Contents, Ledger};

/// The sessions of a process that has just ended take a moment to end.
const LOOKS_FOR_OTHERS: usize = 6;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply all pending migrations; several processes may do so at once
    Up,
    /// Revert the newest migrations AND DELETE THE DATA in their tables
    ///
    /// Refused while anybody else is connected, and while a table has rows, unless --delete-data names the database.
    Down {
        /// How many
        #[arg(long, default_value_t = 1)]
        steps: u32,
        /// Confirm that this database's data may be deleted, by its name (on SQLite, its file's name)
        #[arg(long, value_name = "DATABASE")]
        delete_data: Option<String>,
    },
    /// List the migrations: applied, pending, and those of a newer version; exit code 1 if any is pending
    Status,
}

impl Migrate {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        // One connection: whoever else is connected is somebody else.
        let config = &Config { database_max_connections: 1, ..config.clone() };
        let ledger = match self {
            Self::Up => app::create_ledger(config).await?,
            Self::Down { .. } | Self::Status => app::connect_ledger(config).await?,
        };
        let mut out = output();
        match self {
            Self::Up => writeln!(out, "{} migrations applied", ledger.migrate_up().await?)?,
            Self::Down { steps, delete_data } => {
                refuse_to_delete(&ledger, delete_data.as_deref()).await?;
                ledger.migrate_down(steps).await?;
                writeln!(out, "{steps} migrations reverted")?;
            }
            Self::Status => {
                let migrations = ledger.migrations().await?;
                for (name, applied) in &migrations.known {
                    writeln!(out, "{}  {name}", if *applied { "applied" } else { "pending" })?;
                }
                for name in &migrations.newer {
                    writeln!(out, "newer    {name}")?;
                }
                if migrations.pending() > 0 {
                    bail!("migrations are pending; run `clawback migrate up`");
                }
            }
        }
        Ok(())
    }
}

/// Otherwise one command with a wrong DATABASE_URL deletes a ledger.
async fn refuse_to_delete(ledger: &Ledger, confirmed: Option<&str>) -> Result<()> {
    let mut found = ledger.contents().await?;
    for _ in 0..LOOKS_FOR_OTHERS {
        if found.others.is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        found = ledger.contents().await?;
    }
    let Contents { database, tables, others } = found;
    if !others.is_empty() {
        bail!("others are connected to the database {database} ({}); stop them first", others.join("; "));
    }
    let name = database.rsplit('/').next().unwrap_or(&database);
    if !tables.is_empty() && confirmed != Some(name) {
        let got = confirmed.map_or(String::new(), |got| format!(" (got {got})"));
        bail!(
            "the database {name} has rows in {}, which would be deleted; to confirm that, add --delete-data {name}{got}",
            tables.join(", ")
        );
    }
    Ok(())
}
