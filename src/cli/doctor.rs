//! `clawback doctor`: looks at everything that Clawback needs, and says what to do about what is not right.
//!
//! The checks run at the same time, each with a short time limit, and a broken part hides no other. It changes nothing,
//! and shows no secret.

mod broker;
mod configuration;
mod database;
mod finding;
mod stripe;

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use url::Url;

use self::finding::{Finding, Status};
use super::output::{Format, json};
use super::terminal::print;
use super::topology::parse_management;
use crate::config::{Config, Effective};

/// For each check, connecting included.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Args)]
#[command(after_help = "Each line is ok, a warning, or an error with what to do. Checked are the configuration, the \
                        database with its migrations and clock, what waits in the ledger, the broker with its version, \
                        feature flags, queues, consumers and parked jobs, and Stripe with the key, its mode, and the \
                        clock. Nothing is changed: Stripe is asked for a list of one transfer.\n\n\
                        --format json: {\"status\": \"ok\" | \"warning\" | \"error\", \"checks\": [{\"check\", \
                        \"status\", \"message\", \"remedy\"}]}; \"remedy\" is null where there is nothing to do.\n\n\
                        Examples:\n  \
                        clawback doctor\n  \
                        clawback doctor --format json | jq '.checks[] | select(.status != \"ok\")'\n\n\
                        Exit codes: 0 no error (there may be warnings), 1 at least one error, 2 wrong usage.")]
pub(super) struct Doctor {
    /// RabbitMQ's management API, if it is not on port 15672 of AMQP_URL's host
    #[arg(long, value_name = "URL", value_parser = parse_management)]
    management: Option<Url>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Names are only ever added.
#[derive(Serialize)]
struct Diagnosis {
    /// The worst of all.
    status: Status,
    checks: Vec<Finding>,
}

impl Doctor {
    /// `ready` is the configuration as it was loaded: a bad one is a finding like any other.
    pub(super) async fn execute(self, ready: Result<Config>) -> Result<ExitCode> {
        let checks = match (ready, Config::effective()) {
            (_, Err(error)) => configuration::unusable(&error),
            (Err(error), _) => return Err(error),
            (Ok(config), Ok(effective)) => examine(config, &effective, self.management).await,
        };
        let status = checks.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
        let mut out = Vec::new();
        match self.format {
            Format::Json => json(&mut out, &Diagnosis { status, checks })?,
            Format::Table => {
                let in_colour =
                    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                checks.iter().try_for_each(|finding| finding.show(&mut out, in_colour))?;
                writeln!(out, "\n{}", summary(&checks))?;
            }
        }
        print(&out)?;
        Ok(if status == Status::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Each part in a task of its own: what one of them computes (certificates to load, say) must not cost another its time.
async fn examine(config: Config, effective: &Effective, management: Option<Url>) -> Vec<Finding> {
    let mut findings = configuration::check(&config, effective);
    let config = Arc::new(config);
    let (of_database, of_broker, of_stripe) = (Arc::clone(&config), Arc::clone(&config), config);
    let parts = [
        ("database", tokio::spawn(async move { database::check(&of_database).await })),
        ("broker", tokio::spawn(async move { broker::check(&of_broker, management).await })),
        ("Stripe", tokio::spawn(async move { stripe::check(&of_stripe).await })),
    ];
    for (name, part) in parts {
        let crashed = |error| vec![Finding::error(name, format!("the check crashed: {error}"), "please report this")];
        findings.extend(part.await.unwrap_or_else(crashed));
    }
    findings
}

fn summary(checks: &[Finding]) -> String {
    let count = |status| checks.iter().filter(|finding| finding.status == status).count();
    let numbered = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Status::Error), count(Status::Warning));
    format!("{}, {}, {} ok", numbered(errors, "error"), numbered(warnings, "warning"), count(Status::Ok))
}

/// The result of a check, or its time limit's.
async fn in_time<T>(check: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, check).await.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))
}
