//! `clawback payments`: registers payments and their transfers.

mod csv;
mod import;
mod item;
mod json_lines;
mod lines;
mod report;
mod source;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Payments {
    /// Register payments and their transfers from a file; exit code 3 if some lines are bad
    Import(import::Import),
}

impl Payments {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        match self {
            Self::Import(command) => command.execute(config).await,
        }
    }
}
