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

/// Reads a whole input as the import would, for the fuzzer: each item is a payment or has problems, and the lines go up.
#[cfg(test)]
pub(crate) fn read_to_the_end(input: &[u8], is_csv: bool) {
    let accept = import::Accept { missing: false, excess: false };
    let mut next: Box<dyn FnMut() -> std::io::Result<Option<item::Item>> + '_> = if is_csv {
        let Ok(rows) = csv::Rows::new(input) else { return };
        let mut payments = csv::Csv::new(rows, accept);
        Box::new(move || payments.next())
    } else {
        let mut payments = json_lines::JsonLines::new(input, accept);
        Box::new(move || payments.next())
    };
    let mut last = 0;
    while let Ok(Some(item)) = next() {
        assert_eq!(item.payment.is_some(), item.bad.is_empty(), "{item:?}");
        assert!(item.first_line <= item.last_line && item.last_line >= last, "{item:?}");
        assert!(item.payment.is_none_or(|payment| payment.check().is_ok()), "an invalid payment is let through");
        last = item.last_line;
    }
}
