//! The command line. Only `main` calls it.

mod calls;
mod claims;
mod completions;
mod config;
mod doctor;
mod export;
mod groups;
mod history;
mod migrate;
mod operations;
mod operator;
mod output;
mod parked;
mod pauses;
mod payments;
mod queues;
mod reconcile;
mod reversals;
mod rows;
mod sellers;
mod signals;
mod summary;
mod terminal;
mod topology;
mod trace;
mod transfers;

pub use self::doctor::diagnose;
pub use self::trace::story;
#[cfg(test)]
pub(crate) use payments::read_to_the_end;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::app::{App, Role};
use crate::config::{Config, Part};
use crate::ledger::ClaimKind;
use crate::telemetry;

/// The exit code of a command that is done, but something needs attention or nothing matched.
const NEEDS_ATTENTION: u8 = 3;

/// Takes back from sellers what a refund makes them owe: Stripe Connect transfer reversals as durable jobs on RabbitMQ.
#[derive(Debug, Parser)]
#[command(
    name = "clawback",
    version,
    about,
    max_term_width = 80,
    after_help = "Configuration comes from environment variables (README.md lists them) and from the TOML file that \
                  CLAWBACK_CONFIG names.\n\nExamples:\n  \
                  clawback                        everything in one process\n  \
                  clawback serve                  webhooks, API and relay; scale it apart from…\n  \
                  clawback worker                 …the worker that calls Stripe\n  \
                  clawback migrate status         which migrations are applied\n  \
                  clawback queues verify          do the queues exist, and who consumes them\n  \
                  clawback trace re_3Qx4          what happened to this refund\n  \
                  clawback refunds list --status unmatched  refunds whose payment is unknown
  \
                  clawback summary                what is at risk, and what was taken back
  \
                  clawback parked list            which jobs failed permanently, and why\n  \
                  clawback reconcile --since 24h  do the ledger and Stripe agree\n  \
                  clawback processes              who is alive, what is paused, and whether Stripe can be used\n  \
                  clawback doctor                 check everything that Clawback needs\n  \
                  clawback config                 every setting, and where it comes from\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but something needs \
                  attention or nothing matched; each command's --help says more."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process: HTTP, relay, sweeper and worker (the default)
    Run,
    /// HTTP (webhooks and API), relay and sweeper, without the worker
    Serve,
    /// The worker that calls Stripe; HTTP only for health and metrics (WORKER_HTTP_ADDR)
    Worker,
    /// The database's schema
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// The queues on the broker
    #[command(subcommand)]
    Queues(queues::Queues),
    /// Transfers to sellers
    #[command(subcommand)]
    Transfers(transfers::Transfers),
    /// What sellers owe for refunds and disputes
    #[command(subcommand)]
    Reversals(reversals::Reversals),
    /// Refunds, as providers reported them
    #[command(subcommand)]
    Refunds(claims::Refunds),
    /// Disputes, as providers reported them
    #[command(subcommand)]
    Disputes(claims::Claims),
    /// Replay, close, accept or acknowledge many rows at a time, after a preview
    #[command(subcommand)]
    Operations(operations::Operations),
    /// What each seller was paid, and what it owes
    #[command(subcommand)]
    Sellers(sellers::Sellers),
    /// The ledger in figures: what is at risk, what was taken back, how fast
    Summary(summary::ShowSummary),
    /// Who is alive, what is paused, and whether Stripe can be used
    Processes(pauses::ShowProcesses),
    /// Stop calls to Stripe, about one seller or all of them, until they are resumed
    Pause(pauses::PauseCalls),
    /// Let paused calls go on
    Resume(pauses::ResumeCalls),
    /// The circuit breaker of the workers
    #[command(subcommand)]
    Breaker(pauses::Breaker),
    /// Who did what, when and why
    History(history::History),
    /// Reversals for the books, as CSV or JSON lines
    Export(export::Export),
    /// Look-ups and events that failed permanently
    #[command(subcommand)]
    Calls(calls::Calls),
    /// The messages of jobs that failed permanently
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// One timeline of everything related to an id
    Trace(trace::Trace),
    /// Compare the ledger with Stripe, transfer by transfer; exit code 3 if they differ
    Reconcile(reconcile::Reconcile),
    /// Payments and what was paid out of them
    #[command(subcommand)]
    Payments(payments::Payments),
    /// Check everything that Clawback needs, and say what to do; exit code 1 on an error
    Doctor(doctor::Doctor),
    /// Show every setting, and where it comes from
    Config(config::ShowConfig),
    /// Print a shell's completion script for these commands
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command, and returns the exit code.
    ///
    /// # Errors
    /// The error says what to do about it.
    pub async fn execute(self) -> Result<ExitCode> {
        match self.command.unwrap_or(Command::Run) {
            Command::Run => run(&ready_to_run(&[Part::Server, Part::Worker])?.config, Role::All).await?,
            Command::Serve => run(&ready_to_run(&[Part::Server])?.config, Role::Serve).await?,
            Command::Worker => run(&ready_to_run(&[Part::Worker])?.config, Role::Worker).await?,
            Command::Migrate(command) => command.execute(&ready()?.config).await?,
            Command::Queues(command) => return command.execute(&ready()?.config).await,
            Command::Transfers(command) => return command.execute(&ready()?.config).await,
            Command::Reversals(command) => return command.execute(&ready()?.config).await,
            Command::Refunds(command) => command.execute(&ready()?.config).await?,
            Command::Disputes(command) => command.execute(&ready()?.config, ClaimKind::Dispute).await?,
            Command::Operations(command) => return command.execute(&ready()?.config).await,
            Command::Sellers(command) => command.execute(&ready()?.config).await?,
            Command::Summary(command) => command.execute(&ready()?.config).await?,
            Command::Processes(command) => command.execute(&ready()?.config).await?,
            Command::Pause(command) => command.execute(&ready()?.config).await?,
            Command::Resume(command) => command.execute(&ready()?.config).await?,
            Command::Breaker(command) => command.execute(&ready()?.config).await?,
            Command::History(command) => command.execute(&ready()?.config).await?,
            Command::Export(command) => command.execute(&ready()?.config).await?,
            Command::Calls(command) => command.execute(&ready()?.config).await?,
            Command::Parked(command) => return command.execute(&ready()?.config).await,
            Command::Trace(command) => command.execute(&ready()?.config).await?,
            Command::Reconcile(command) => return command.execute(&ready()?.config).await,
            Command::Payments(command) => return command.execute(&ready()?.config).await,
            Command::Doctor(command) => return command.execute(quietly_ready().map(|ready| ready.config)).await,
            Command::Config(command) => command.execute()?,
            Command::Completions(command) => command.execute()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The configuration, and logs until it is dropped.
struct Ready {
    config: Config,
    _until_the_end: telemetry::Telemetry,
}

impl Ready {
    /// A setting that is misspelt has its default: a command could act on another database than was meant.
    fn with_warnings(self) -> Self {
        for unknown in &self.config.unknown_variables {
            tracing::warn!(name = unknown.name, "{unknown}");
        }
        self
    }
}

/// For processes that run until they are stopped: logs as configured.
fn ready_to_run(parts: &[Part]) -> Result<Ready> {
    let config = Config::load(parts)?;
    let logs = telemetry::init(config.log_format, &config.rust_log, config.otlp_endpoint.as_ref())?;
    Ok(Ready { config, _until_the_end: logs }.with_warnings())
}

/// For commands that answer and end: they log warnings only, and none of those about what such a command reports itself, or
/// that a connection was slow.
fn ready() -> Result<Ready> {
    Ok(quietly_ready()?.with_warnings())
}

/// For the doctor, who lists the warnings about settings among the others.
fn quietly_ready() -> Result<Ready> {
    const SILENT: &str = "queues::parking=error,sqlx::pool=error";
    let config = Config::load(&[])?;
    let said = std::env::var_os("RUST_LOG").map_or("warn", |_| config.rust_log.as_str());
    let logs = telemetry::init(config.log_format, &format!("{SILENT},{said}"), config.otlp_endpoint.as_ref())?;
    Ok(Ready { config, _until_the_end: logs })
}

async fn run(config: &Config, role: Role) -> Result<()> {
    // Listen before anything starts: an early signal must stop the program in order, too.
    let stop = signals::stop()?;
    let app = App::build(config, role).await?;
    match app.http_addr() {
        Some(addr) => tracing::info!(%addr, ?role, "clawback is up"),
        None => tracing::info!(?role, "clawback is up"),
    }
    let delay = config.shutdown_delay;
    app.run_until(async move { if stop.await == signals::Stop::Terminate { delay } else { Duration::ZERO } }).await
}
