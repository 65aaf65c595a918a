//! The simulator as a program, for trials by hand and for compose. See `stripe-sim --help`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use stripe_sim::{Sim, TransferSpec};
use tokio::signal::unix::{SignalKind, signal};

/// Simulates Stripe's transfers, reversals, payments, refunds and disputes. Faults are set under /_sim; any API key that begins with sk_test_ is
/// accepted.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one, and the first line of the output says which
    #[arg(long, env = "STRIPE_SIM_LISTEN", default_value = "127.0.0.1:12111", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// A transfer that is there from the start, as in tr_1:9000:eur:acct_1 (repeatable; comma-separated in the
    /// environment)
    #[arg(
        long,
        env = "STRIPE_SIM_TRANSFERS",
        default_value = "",
        value_delimiter = ',',
        value_name = "ID:AMOUNT:CURRENCY:ACCOUNT"
    )]
    transfer: Vec<String>,

    /// Have the transfers tr_bench_1 to tr_bench_N from the start
    #[arg(long, default_value_t = 0, value_name = "N")]
    transfers: u32,

    /// The amount of each of these, in euro cents
    #[arg(long, default_value_t = 10_000, value_name = "AMOUNT", requires = "transfers")]
    amount: i64,

    /// How many requests GET /_sim/ledger shows at least
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    log: usize,

    /// Keep no requests; GET /_sim/counts still counts them
    #[arg(long, conflicts_with = "log")]
    no_log: bool,

    /// Ask the simulator that listens there whether it is well, and exit with 0 or 1
    #[arg(long)]
    healthcheck: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.healthcheck {
        check_health(arguments.listen).context("the simulator is not well")?;
        return Ok(ExitCode::SUCCESS);
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let log = if arguments.no_log { 0 } else { arguments.log };
    let mut builder = Sim::builder().listen(arguments.listen).log_limit(log);
    builder = builder.seed_transfers(arguments.transfers, arguments.amount);
    // An empty variable, as compose sets it, means no transfer.
    for transfer in arguments.transfer.iter().filter(|transfer| !transfer.trim().is_empty()) {
        builder = builder.transfer(transfer.trim().parse::<TransferSpec>().map_err(anyhow::Error::msg)?);
    }
    let sim = builder.try_start().with_context(|| format!("can't listen on {}", arguments.listen))?;
    let mut terminated = signal(SignalKind::terminate())?;
    writeln!(std::io::stdout(), "stripe-sim listens on {}", sim.base_url())?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

fn check_health(mut address: SocketAddr) -> anyhow::Result<()> {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let timeout = Duration::from_secs(3);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET /_sim/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("it answered {:?}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}
