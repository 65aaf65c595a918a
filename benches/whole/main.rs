//! Measures the whole program from outside, on real services: `./dev bench whole`. What is measured and how: docs/benchmarks.md.
//!
//! This process drives `clawback import|serve|worker`, the simulator of Stripe and the peers as processes of their own, sends the
//! webhooks, and reads the results from PostgreSQL, the simulator and /proc. It checks that every refund was reversed exactly once.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod backlog;
mod bare;
mod children;
mod cost;
mod database;
mod drain;
mod http;
mod latency;
mod peers;
mod place;
mod program;
mod report;
mod rounds;
mod simulator;
mod webhooks;

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Measures intake, draining, latency, memory and cost per refund of the whole program.
#[derive(Debug, Parser)]
#[command(name = "./dev bench whole")]
struct Arguments {
    /// Refunds to send and to reverse
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(2_000..=2_000_000))]
    refunds: u32,
    /// Measure Dramatiq and Celery as well
    #[arg(long)]
    peers: bool,
    /// Jobs for each of the peers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1_000..=2_000_000))]
    peer_jobs: u32,
    /// The bare consumer, which this program starts as a process of its own
    #[arg(long, hide = true)]
    bare_worker: bool,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if arguments.bare_worker {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(bare::work());
    }
    // One thread: the load generator shares two cores with everything that it measures.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            result = rounds::run(&arguments) => result,
            _ = interrupted.recv() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
        }
    })
}
