//! `clawback doctor`: checks everything that Clawback needs, side by side, and says what to do. It changes nothing.

mod broker;
mod configuration;
mod database;
mod finding;
mod processes;
mod stripe;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use self::finding::{Finding, Status};
use super::NEEDS_ATTENTION;
use super::output::{Format, json};
use super::terminal::{in_color, print};
use super::topology::Management;
use crate::config::{Config, Effective};
use crate::operator::doctor::Diagnosis;

/// For each check, connecting included.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Args)]
#[command(
    after_help = "Each line is ok, a warning, or an error with what to do. Checks the configuration; the database, \
                        its migrations and clock, and what waits in the ledger; the broker, its version, feature \
                        flags, queues, consumers and parked jobs; who is alive, what is paused, and the circuit breakers; and Stripe, the key, its mode, and the clock. \
                        Nothing is changed: Stripe is asked for a list of one transfer, \
                        and of the webhook endpoints.\n\n\
                        --format json: {\"status\": \"ok\" | \"warning\" | \"error\", \"checks\": [{\"check\", \
                        \"status\", \"message\", \"remedy\"}]}; \"remedy\" is null where there is nothing to do.\n\n\
                        Examples:\n  \
                        clawback doctor\n  \
                        clawback doctor --strict || mail -s clawback ops@example.com\n  \
                        clawback doctor --format json | jq '.checks[] | select(.status != \"ok\")'\n\n\
                        Exit codes: 0 no error (with --strict: no warning either), 1 at least one error, 2 wrong usage, \
                        3 with --strict: at least one warning."
)]
pub(super) struct Doctor {
    #[command(flatten)]
    management: Management,
    /// Exit with 3 on any warning, such as debts that failed, and refunds that are unmatched or need attention
    #[arg(long)]
    strict: bool,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Doctor {
    /// `ready` is the result of loading the configuration: a bad one is a finding like any other.
    pub(super) async fn execute(self, ready: Result<Config>) -> Result<ExitCode> {
        let checks = match (ready, Config::effective()) {
            (_, Err(error)) => configuration::unusable(&error),
            (Err(error), _) => return Err(error),
            (Ok(config), Ok(effective)) => examine(config, effective, self.management, false).await,
        };
        let diagnosis = Diagnosis::of(checks);
        let mut out = Vec::new();
        match self.format {
            Format::Json => json(&mut out, &diagnosis)?,
            Format::Table => {
                let in_color = in_color();
                diagnosis.checks.iter().try_for_each(|finding| finding.show(&mut out, in_color))?;
                writeln!(out, "\n{}", summary(&diagnosis))?;
            }
        }
        print(&out)?;
        Ok(match diagnosis.status {
            Status::Error => ExitCode::FAILURE,
            Status::Warning if self.strict => ExitCode::from(NEEDS_ATTENTION),
            Status::Warning | Status::Ok => ExitCode::SUCCESS,
        })
    }
}

/// What `clawback doctor` finds with this configuration, which is that of the process that takes webhooks.
pub async fn diagnose(config: Config) -> Diagnosis {
    Diagnosis::of(match Config::effective() {
        Ok(effective) => examine(config, effective, Management::default(), true).await,
        Err(error) => configuration::unusable(&error),
    })
}

/// Each part runs in a task of its own, so what one computes (loading certificates, say) costs another none of its time.
async fn examine(config: Config, effective: Effective, management: Management, is_whole: bool) -> Vec<Finding> {
    let config = Arc::new(config);
    let [itself, of_database, of_broker, of_stripe] = std::array::from_fn(|_| Arc::clone(&config));
    let mut findings = Vec::new();
    let parts = [
        ("configuration", tokio::spawn(async move { configuration::check(&itself, &effective, is_whole).await })),
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

fn summary(diagnosis: &Diagnosis) -> String {
    let numbered = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let [errors, warnings, fine] = [Status::Error, Status::Warning, Status::Ok].map(|status| diagnosis.count(status));
    format!("{}, {}, {fine} ok", numbered(errors, "error"), numbered(warnings, "warning"))
}

/// The result of a check, or its time limit's.
async fn in_time<T>(check: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, check).await.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))
}
