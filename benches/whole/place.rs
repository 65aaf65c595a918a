//! Where a run takes place: what scripts/bench.sh has started, from the environment.

use std::{env, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use url::Url;

/// The URLs, process ids and paths of one run.
#[derive(Debug)]
pub(crate) struct Place {
    /// Logs and process ids of this run.
    pub(crate) dir: PathBuf,
    /// The program that is measured.
    pub(crate) clawback: PathBuf,
    pub(crate) simulator_program: PathBuf,
    pub(crate) amqp_url: String,
    /// RabbitMQ's management API, with credentials.
    pub(crate) management_url: String,
    /// The superuser's.
    pub(crate) database_url: String,
    pub(crate) broker_pid: u32,
    pub(crate) postgres_pid: u32,
    pub(crate) serve: SocketAddr,
    pub(crate) worker: SocketAddr,
    pub(crate) simulator: SocketAddr,
}

impl Place {
    /// # Errors
    /// When a variable is missing: the benchmark was not started by `./dev bench whole`.
    pub(crate) fn from_environment() -> Result<Self> {
        let port: u16 = variable("BENCH_PORT")?.parse().context("BENCH_PORT must be a port")?;
        let address = |offset| SocketAddr::from(([127, 0, 0, 1], port + offset));
        Ok(Self {
            dir: variable("BENCH_DIR")?.into(),
            clawback: env::var_os("BENCH_CLAWBACK")
                .map_or_else(|| env!("CARGO_BIN_EXE_clawback").into(), PathBuf::from),
            simulator_program: variable("BENCH_SIMULATOR")?.into(),
            amqp_url: variable("AMQP_URL")?,
            management_url: variable("RABBITMQ_MANAGEMENT_URL")?,
            database_url: variable("DATABASE_URL")?,
            broker_pid: variable("BENCH_BROKER_PID")?.parse().context("BENCH_BROKER_PID must be a process id")?,
            postgres_pid: variable("BENCH_POSTGRES_PID")?.parse().context("BENCH_POSTGRES_PID must be a process id")?,
            serve: address(0),
            worker: address(1),
            simulator: address(2),
        })
    }

    /// The URL of `database` for `user`, whose password is the same word.
    pub(crate) fn database_url_of(&self, user: &str, database: &str) -> Result<String> {
        let mut url = Url::parse(&self.database_url)?;
        let set = url.set_username(user).and_then(|()| url.set_password(Some(user)));
        set.map_err(|()| anyhow::anyhow!("DATABASE_URL must name a host"))?;
        url.set_path(database);
        Ok(url.into())
    }

    pub(crate) fn simulator_url(&self) -> String {
        format!("http://{}", self.simulator)
    }
}

/// A variable that scripts/bench.sh sets.
///
/// # Errors
/// When it is not set.
pub(crate) fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `./dev bench whole`, which starts what is needed"))
}
