//! The parts that the composition root puts together: each made from the configuration, with an error that says which
//! setting to look at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use queues::{Broker, BrokerError, KeyPermits, RetryPolicy, Topology, Worker};
use sea_orm::sqlx::postgres::PgConnectOptions;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::{TcpListener, TcpStream};

use super::{DRAIN, JOB_TIMEOUT, Patience, Role, Workers, management_url, presence};
use crate::cli;
use crate::config::{AppEnv, Config};
use crate::http::webhooks::{self, IngressState};
use crate::http::{self, ApiState, Looks, openapi};
use crate::ledger::{CallKind, ClaimPolicy, Ledger, LedgerOptions, now};
use crate::operator::{Operator, Watched};
use crate::reconcile::StripeNow;
use crate::relay::Route;
use crate::stripe;
use crate::ui::{self, Instance, Ui};
use crate::worker::{
    self, Caller, CircuitBreaker, CreateTransfer, Limiter, LookUp, Notifier, Notify, ReverseTransfer, Timing,
};

/// Retries of one notification before its job is parked.
const NOTIFY_RETRIES: u32 = 30;
/// No more jobs run at a time than Stripe takes calls in so many seconds.
const SECONDS_OF_TURNS: usize = 8;

const NO_DATABASE: &str = "the database can't be reached; check DATABASE_URL";

/// Connects to the database that `config` names, without looking at its schema. Creates no SQLite file.
///
/// # Errors
/// When the SQLite file does not exist, or the database can't be reached; says so at once, with host and port.
pub async fn connect_ledger(config: &Config) -> Result<Ledger> {
    match config.missing_sqlite_file() {
        Some(file) if config.has_default_database() => {
            bail!("DATABASE_URL is not set, and its default, the SQLite file {file:?}, does not exist here")
        }
        Some(file) => bail!("the SQLite file {file:?} does not exist; check DATABASE_URL"),
        None => {
            probe_postgres(config.database_url.expose_secret()).await.context(NO_DATABASE)?;
            create_ledger(config).await
        }
    }
}

/// As [`connect_ledger`], for a process that starts beside its database and gives it a few seconds. Creates the SQLite file if `DATABASE_URL` has `mode=rwc`.
///
/// # Errors
/// When the database can't be reached.
pub async fn create_ledger(config: &Config) -> Result<Ledger> {
    let url = config.database_url.expose_secret();
    let options = LedgerOptions {
        reversal_grace: config.reversal.check_interval,
        creation_grace: config.transfer_retry.check_interval,
        max_connections: config.database_max_connections,
        claims: ClaimPolicy {
            refunds_since: config.claims.refunds_since,
            reverse_on_pending: config.claims.reverse_on_pending,
            discovery: config.stripe.discovery,
            disputes: config.claims.dispute_policy,
        },
        notifies: config.events_url.is_some(),
    };
    let ledger = Ledger::connect(url, options).await.context(NO_DATABASE)?;
    Ok(ledger.confirming_from(config.confirm_from))
}

/// The pool retries a refused connection until its time limit and then reports only that limit.
async fn probe_postgres(url: &str) -> Result<()> {
    if !url.starts_with("postgres") {
        return Ok(());
    }
    // sqlx reports what is wrong with the URL, and connects to Unix sockets.
    let Ok(options) = url.parse::<PgConnectOptions>() else { return Ok(()) };
    let (host, port) = (options.get_host(), options.get_port());
    if options.get_socket().is_some() || host.starts_with('/') {
        return Ok(());
    }
    match tokio::time::timeout(Duration::from_secs(5), TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => bail!("PostgreSQL at {host}:{port} can't be reached: {error}"),
        Err(_) => bail!("PostgreSQL at {host}:{port} did not answer within 5 s"),
    }
}

pub(super) async fn open_ledger(config: &Config, role: Role) -> Result<Ledger> {
    let ledger = if role == Role::Worker { connect_ledger(config).await? } else { create_ledger(config).await? };
    match config.app_env {
        AppEnv::Development => {
            let applied = ledger.migrate_up().await.context("the database's schema could not be brought up to date")?;
            if applied > 0 {
                tracing::info!(applied, "migrations applied");
            }
        }
        AppEnv::Production => {
            let pending = ledger.pending_migrations().await?;
            if pending > 0 {
                bail!("{pending} migrations are pending; run `clawback migrate up` first");
            }
        }
    }
    Ok(ledger)
}

/// The broker that `config` names; its management UI shows connections under `name`.
///
/// # Errors
/// When the URL can't be used.
pub fn broker(config: &Config, name: &str) -> Result<Broker> {
    let broker = Broker::new(config.amqp_url.expose_secret(), name).context("AMQP_URL can't be used")?;
    Ok(match config.amqp_url_file.clone() {
        Some(file) => broker.with_renewed_url(move || Config::read_again(&file)),
        None => broker,
    })
}

/// The client of Stripe that `config` describes, with this key.
///
/// # Errors
/// When the base, the key or the proxy can't be used.
pub fn stripe_client(config: &Config, api_key: SecretString) -> Result<stripe::Client, stripe::ClientError> {
    stripe::Client::new(config.stripe.api_base.clone(), api_key, config.stripe.proxy.as_ref())
}

/// How reversals and look-ups are retried.
#[must_use]
pub fn retry_policy(config: &Config) -> RetryPolicy {
    let reversal = &config.reversal;
    RetryPolicy::new(reversal.backoff_base, reversal.backoff_max, reversal.max_retries)
}

/// How the creation of transfers is retried.
#[must_use]
pub fn transfer_retry_policy(config: &Config) -> RetryPolicy {
    let retry = &config.transfer_retry;
    RetryPolicy::new(retry.backoff_base, retry.backoff_max, retry.max_retries)
}

/// The kinds of calls that are made. Nobody is told anything without `EVENTS_URL`.
fn kinds(config: &Config) -> impl Iterator<Item = CallKind> {
    CallKind::all().filter(|kind| *kind != CallKind::Notify || config.events_url.is_some())
}

/// The queues of every kind of job.
///
/// # Errors
/// When a delay is one that no queue can have.
pub fn topologies(config: &Config) -> Result<Vec<Topology>> {
    kinds(config).map(|kind| topology(config, kind)).collect()
}

fn topology(config: &Config, kind: CallKind) -> Result<Topology> {
    let (policy, settings) = match kind {
        CallKind::Reverse | CallKind::LookUp | CallKind::Notify => {
            (retry_policy(config), "REVERSAL_BACKOFF_BASE and _MAX")
        }
        CallKind::Create => (transfer_retry_policy(config), "TRANSFER_RETRY_BACKOFF_BASE and _MAX"),
    };
    worker::topology(kind, &policy).with_context(|| format!("{settings} can't be used"))
}

/// Where the relay sends each kind of job.
pub(super) fn routes(config: &Config) -> Result<Vec<Route>> {
    kinds(config).map(|kind| Ok(Route { kind: kind.job(), topology: topology(config, kind)? })).collect()
}

/// Declares the queues. Without them a worker does not start, unless the broker can't be reached yet; what takes webhooks
/// starts in any case, and the relay declares them again.
pub(super) async fn check_queues(config: &Config, role: Role) -> Result<()> {
    match broker(config, "clawback start")?.declare_all(&topologies(config)?).await {
        Ok(()) => Ok(()),
        Err(error @ BrokerError::Unreachable { .. }) => {
            tracing::warn!(%error, "the broker can't be reached yet; going on, jobs wait in the outbox");
            Ok(())
        }
        Err(error) if role != Role::Worker => {
            tracing::error!(%error, "the queues on the broker can't be used; taking webhooks, whose jobs wait in the outbox");
            Ok(())
        }
        Err(error) => Err(error).context("the queues on the broker can't be used"),
    }
}

/// Binds the address that `setting` names.
pub(super) async fn listen(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{setting} {address} can't be listened on"))
}

/// Webhooks, the API, what describes and watches them, and the pages.
pub(super) fn server(config: &Config, mut api: ApiState) -> Result<Router> {
    let watched = Operator::new(api.ledger.clone(), broker(config, "clawback survey")?, topologies(config)?);
    let (surveys, settings) = (watched.surveys(management_url(config)), config.clone());
    let doctor = Watched::new(move || cli::diagnose(settings.clone()));
    let looks = Looks { surveys, doctor };
    api.looks = Some(looks.clone());
    let ingress = IngressState {
        ledger: api.ledger.clone(),
        stripe_webhook_secret: config.stripe.webhook_secret.clone(),
        stripe_livemode: config.stripe.livemode(),
        hyperswitch_webhook_secret: config.hyperswitch_webhook_secret.clone(),
    };
    let pages = if config.ui_enabled { ui::routes(pages(config, &api, looks)?) } else { Router::new() };
    Ok(http::complete(webhooks::routes(ingress).merge(http::routes(api)).merge(openapi::routes()).merge(pages)))
}

fn pages(config: &Config, api: &ApiState, looks: Looks) -> Result<Ui> {
    let instance = Instance {
        name: presence::host().unwrap_or_else(|| config.http_addr.to_string()),
        livemode: config.stripe.livemode(),
        management: management_url(config),
    };
    Ok(Ui {
        ledger: api.ledger.clone(),
        operator: Operator::new(api.ledger.clone(), broker(config, "clawback pages")?, topologies(config)?),
        tokens: api.tokens.clone(),
        broker: api.broker.clone(),
        stripe_now: api.stripe_now.clone(),
        looks,
        story: cli::story,
        instance: Arc::new(instance),
    })
}

/// The client of Stripe that this process has, with its turns; none without a key.
///
/// # Errors
/// As [`stripe_client`].
pub fn stripe_now(config: &Config) -> Result<Option<StripeNow>> {
    let Some(api_key) = config.stripe.api_key.clone() else { return Ok(None) };
    let limiter = Arc::new(Limiter::new(config.stripe.max_rps));
    Ok(Some(StripeNow { client: stripe_client(config, api_key)?, limiter }))
}

/// Health and metrics alone.
pub(super) fn watching_server(api: ApiState) -> Router {
    http::complete(http::watching_routes(api))
}

/// Who tells another system what happens, if one is to be told.
fn notifier(config: &Config) -> Result<Option<Notifier>> {
    let Some(url) = &config.events_url else { return Ok(None) };
    let Some(secrets) = &config.events_secret else {
        bail!("EVENTS_SECRET is missing: the events that EVENTS_URL is told are signed with it");
    };
    Ok(Some(Notifier::new(url, secrets.first())?))
}

/// The consumers that this process is to run, and what watches them; none when all are switched off.
pub(super) fn workers(
    config: &Config,
    ledger: &Ledger,
    stripe: Option<&StripeNow>,
    patience: Patience,
) -> Result<Option<Workers>> {
    let (reversals, creations) = (config.reversal.worker_enabled, config.transfer_retry.enabled);
    if !reversals && !creations {
        return Ok(None);
    }
    let Some(StripeNow { client: stripe, limiter }) = stripe.cloned() else {
        if !reversals {
            tracing::warn!(
                "STRIPE_API_KEY is missing: transfers that Clawback is to create wait until a worker has it"
            );
            return Ok(None);
        }
        bail!("STRIPE_API_KEY is missing: the worker calls Stripe with it (or run `clawback serve` for HTTP alone)");
    };
    let breaker = Arc::new(CircuitBreaker::new());
    // A job that holds its place for longer than this before its turn to call only keeps others from being prefetched elsewhere.
    let concurrency = config.reversal.concurrency.min(config.stripe.max_rps as usize * SECONDS_OF_TURNS);
    let caller = Caller {
        ledger: ledger.clone(),
        stripe: stripe.clone(),
        limiter: Arc::clone(&limiter),
        breaker: Arc::clone(&breaker),
        transfers: KeyPermits::new(1),
        sellers: KeyPermits::new(concurrency / 2),
        policy: retry_policy(config),
        timing: Timing {
            balance_deadline: config.reversal.balance_deadline,
            settling: patience.settling,
            turn: patience.turn,
        },
        parse: webhooks::stripe::content_of,
        notifier: notifier(config)?,
    };
    let consumer = |kind: CallKind, policy: RetryPolicy| -> Result<Worker> {
        let broker = broker(config, "clawback worker")?.with_refusal_timeout(patience.refusals);
        Ok(Worker::new(&broker, topology(config, kind)?, policy)
            .clock(now)
            .prefetch(config.reversal.prefetch)
            .concurrency(concurrency)
            .job_timeout(JOB_TIMEOUT)
            .drain_timeout(DRAIN))
    };
    let (mut consumers, mut notifications) = (Vec::new(), None);
    if reversals {
        let worker = consumer(CallKind::Reverse, caller.policy)?;
        consumers.push(worker.register::<ReverseTransfer, _>(caller.clone()));
        let worker = consumer(CallKind::LookUp, caller.policy)?;
        consumers.push(worker.register::<LookUp, _>(caller.clone()));
    }
    if caller.notifier.is_some() {
        // It must tell that Stripe can't be used. The default delays add up to a day.
        let policy = RetryPolicy::new(config.reversal.backoff_base, config.reversal.backoff_max, NOTIFY_RETRIES);
        let worker = consumer(CallKind::Notify, policy)?;
        let caller = Caller { policy, breaker: Arc::new(CircuitBreaker::new()), ..caller.clone() };
        notifications = Some(worker.register::<Notify, _>(caller));
    }
    if creations {
        let policy = transfer_retry_policy(config);
        let worker = consumer(CallKind::Create, policy)?;
        consumers.push(worker.register::<CreateTransfer, _>(Caller { policy, ..caller }));
    }
    Ok(Some(Workers { consumers, notifications, breaker, limiter, stripe, patience }))
}
