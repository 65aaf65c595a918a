//! The composition root: makes the parts from the configuration, runs them, and stops them in order.

mod credentials;
mod management;
mod parts;
mod presence;
mod server;

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use axum::Router;
use queues::{Publisher, Worker};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::http::{ApiState, Tokens};
use crate::ledger::Ledger;
use crate::operator::{Operator, work_on_operations};
use crate::reconcile::StripeNow;
use crate::relay::{self, Relay, Sweeper};
use crate::stripe;
use crate::telemetry::Recorder;
use crate::worker::{CircuitBreaker, Consumers, Limiter};

use credentials::Credentials;
pub use management::{management_url, parse_management_url};
pub use parts::{
    broker, connect_ledger, create_ledger, retry_policy, stripe_client, stripe_now, topologies, transfer_retry_policy,
};
use parts::{check_queues, listen, open_ledger, routes, server, watching_server, workers};
pub use presence::host;
use presence::{Presence, Working};

/// What is in flight when the program is told to stop gets this long. Orchestrators commonly kill after 30 s.
const DRAIN: Duration = Duration::from_secs(20);
/// A job that takes longer is cut off and retried: a look, a call and another look, which are five requests at the Stripe
/// client's timeout, and three turns at the longest that is waited for.
const JOB_TIMEOUT: Duration = Duration::from_secs(300);

/// Which parts run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// HTTP, relay and sweeper.
    Serve,
    /// The consumers of jobs; and their health and metrics, if `WORKER_HTTP_ADDR` is set.
    Worker,
}

/// The waits that are no settings, since a wrong value would lose money or attention. Only tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two looks at Stripe's list that must both find nothing: longer than a call can be on its way.
    pub settling: Duration,
    /// Between two probes of a Stripe that can't be used.
    pub probe_every: Duration,
    /// How long a job waits for its turn to call Stripe. While turns are further away none is taken.
    pub turn: Duration,
    /// How long broker or database may refuse the credentials before the process ends: only a restart brings it others.
    pub refusals: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (settling, probe_every) = (Duration::from_secs(45), Duration::from_secs(10));
        Self { settling, probe_every, turn: Duration::from_secs(30), refusals: Duration::from_secs(5 * 60) }
    }
}

/// Clawback, built and ready to run.
#[derive(Debug)]
pub struct App {
    role: Role,
    ledger: Ledger,
    publisher: Option<Publisher>,
    relay: Option<(Relay, Sweeper)>,
    http: Option<(TcpListener, Router)>,
    workers: Option<Workers>,
    /// Works on operations.
    operator: Operator,
    stripe_now: Option<StripeNow>,
    recorder: Option<Recorder>,
    credentials: Credentials,
    /// Told to stop.
    leaving: CancellationToken,
}

/// The consumers of jobs, and what watches them: all share one limiter and one circuit breaker.
#[derive(Debug)]
struct Workers {
    consumers: Vec<Worker>,
    /// Apart from the others: the breaker does not pause it.
    notifications: Option<Worker>,
    breaker: Arc<CircuitBreaker>,
    limiter: Arc<Limiter>,
    stripe: stripe::Client,
    patience: Patience,
}

impl App {
    /// Connects to the database, brings its schema up to date, checks the queues, and binds the HTTP address.
    ///
    /// A broker that can't be reached does not stop the start: refunds are taken in and their jobs wait in the outbox.
    ///
    /// # Errors
    /// When the database can't be used, the queues on the broker are not as needed, a secret that the role needs is
    /// missing, or the address is taken; each error says what to do.
    pub async fn build(config: &Config, role: Role) -> Result<Self> {
        Self::build_with(config, role, Patience::default()).await
    }

    /// [`Self::build`], with other waits.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub async fn build_with(config: &Config, role: Role, patience: Patience) -> Result<Self> {
        let ledger = open_ledger(config, role).await?;
        check_queues(config, role).await?;

        let address = match role {
            Role::All | Role::Serve => Some(config.http_addr),
            Role::Worker => config.worker_http_addr,
        };
        // Before the parts are made: their counters are bound then.
        let recorder = address.map(|_| Recorder::installed()).transpose()?;
        let credentials = Credentials::new(config, patience.refusals);
        let leaving = CancellationToken::new();
        let (publisher, relay, http) = Default::default();
        let stripe_now = stripe_now(config)?;
        let operator = Operator::new(ledger.clone(), broker(config, "clawback operator")?, topologies(config)?);
        let mut app = Self {
            role,
            ledger,
            publisher,
            relay,
            http,
            workers: None,
            operator,
            stripe_now,
            recorder,
            credentials,
            leaving,
        };
        if role != Role::Serve {
            app.workers = workers(config, &app.ledger, app.stripe_now.as_ref(), patience)?;
        }
        if role == Role::Worker && app.workers.is_none() {
            bail!(
                "REVERSAL_WORKER_ENABLED and TRANSFER_RETRY_ENABLED are false, so that `clawback worker` has nothing to \
                 do; set one of them to true"
            );
        }
        if role != Role::Worker {
            // It takes webhooks whatever the broker does.
            let broker = broker(config, "clawback relay")?.with_refusal_timeout(Duration::MAX);
            let publisher = Publisher::start(&broker);
            let routes = routes(config)?;
            let interval = config.reversal.check_interval;
            let relay = relay::relay(&app.ledger, &broker, publisher.clone(), &routes, interval);
            let sweeper = Sweeper::new(
                app.ledger.clone(),
                broker,
                routes,
                interval,
                config.transfer_retry.check_interval,
                config.inbox_retention,
            );
            app.relay = Some((relay, sweeper));
            app.publisher = Some(publisher);
        }
        if let (Some(address), Some(recorder)) = (address, app.recorder.clone()) {
            let listener = listen(address, if role == Role::Worker { "WORKER_HTTP_ADDR" } else { "HTTP_ADDR" }).await?;
            let state = app.api_state(config, recorder);
            let router = if role == Role::Worker { watching_server(state) } else { server(config, state)? };
            app.http = Some((listener, router));
        }
        Ok(app)
    }

    fn api_state(&self, config: &Config, recorder: Recorder) -> ApiState {
        let workers = self.workers.as_ref();
        ApiState {
            ledger: self.ledger.clone(),
            tokens: Tokens::new(config.api_token.as_ref(), config.api_read_token.as_ref()),
            broker: self.publisher.as_ref().map(Publisher::state),
            consumers: workers
                .map(|workers| workers.consumers.iter().chain(&workers.notifications).map(Worker::state).collect())
                .unwrap_or_default(),
            stripe: workers.map(|workers| workers.breaker.state()),
            limiter: workers.map(|workers| Arc::clone(&workers.limiter)),
            looks: None,
            figures: Default::default(),
            stripe_now: self.stripe_now.clone(),
            recorder,
            leaving: self.leaving.clone(),
            database: Arc::default(),
        }
    }

    /// The ledger that this app works on.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Where HTTP is served, if it is; with the port that the system chose when the configuration says 0.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Runs until `stop` resolves, then stops taking work, finishes what is in flight within a deadline, gives the rest
    /// back, and closes the connections. Webhooks and API are served as long after that as `stop` says, while the readiness
    /// fails: balancers learn of it before the address is closed.
    ///
    /// # Errors
    /// When a part ends by itself: the others are stopped then, too.
    pub async fn run_until(self, stop: impl Future<Output = Duration> + Send + 'static) -> Result<()> {
        let (stopping, leaving) = (CancellationToken::new(), self.leaving);
        let serves_webhooks = self.relay.is_some();
        let mut parts: JoinSet<(&'static str, Result<()>)> = JoinSet::new();
        if let Some((relay, sweeper)) = self.relay {
            let (relay_stop, sweeper_stop) = (stopping.clone(), stopping.clone());
            parts.spawn(async move { ("relay", relay.run(relay_stop.cancelled_owned()).await.map_err(Into::into)) });
            parts.spawn(async move {
                ("sweeper", {
                    sweeper.run(sweeper_stop).await;
                    Ok(())
                })
            });
        }
        let (stop_looking, ledger, credentials) = (stopping.clone(), self.ledger.clone(), self.credentials);
        parts.spawn(async move { ("database", credentials.keep(ledger, stop_looking).await) });
        let (stop_operations, operator) = (stopping.clone(), self.operator);
        parts.spawn(async move {
            work_on_operations(operator, stop_operations).await;
            ("operations", Ok(()))
        });
        let workers = self.workers.as_ref().map(|workers| Working {
            consumers: workers.consumers.iter().chain(&workers.notifications).map(Worker::control).collect(),
            breaker: Arc::clone(&workers.breaker),
            limiter: Arc::clone(&workers.limiter),
        });
        let presence = Presence { ledger: self.ledger.clone(), role: self.role, workers };
        let stop_beating = stopping.clone();
        parts.spawn(async move {
            presence.keep(stop_beating).await;
            ("heartbeat", Ok(()))
        });
        if let Some(recorder) = self.recorder {
            let stop = stopping.clone();
            parts.spawn(async move {
                recorder.keep_small(stop).await;
                ("metrics recorder", Ok(()))
            });
        }
        if let Some((listener, router)) = self.http {
            let stop = stopping.clone();
            parts.spawn(async move {
                server::serve(listener, router, stop, DRAIN).await;
                ("HTTP server", Ok(()))
            });
        }
        if let Some(Workers { consumers, notifications, breaker, limiter, stripe, patience }) = self.workers {
            let (stop, ledger) = (leaving.clone(), self.ledger.clone());
            let controls = consumers.iter().map(Worker::control).collect();
            let paused = Consumers { controls, limiter, patience: patience.turn };
            parts.spawn(async move {
                breaker.run(paused, stripe, ledger, patience.probe_every, stop).await;
                ("circuit breaker", Ok(()))
            });
            for consumer in consumers.into_iter().chain(notifications) {
                let stop = leaving.clone().cancelled_owned();
                parts.spawn(async move { ("worker", consumer.run(stop).await.map_err(Into::into)) });
            }
        }

        let failed = tokio::select! {
            delay = stop => {
                leaving.cancel();
                if serves_webhooks && !delay.is_zero() {
                    tracing::info!(?delay, "stopping: not ready any more, and serving for a while yet");
                    tokio::time::sleep(delay).await;
                }
                None
            }
            ended = ended(&mut parts) => Some(ended),
        };
        tracing::info!("stopping: finishing what is in flight");
        leaving.cancel();
        stopping.cancel();
        let drained = tokio::time::timeout(DRAIN + Duration::from_secs(5), async {
            let mut first_error = None;
            while let Some(part) = parts.join_next().await {
                first_error = first_error.or(outcome_of(part).1.err());
            }
            first_error
        })
        .await;
        parts.shutdown().await;
        if let Some(publisher) = self.publisher {
            publisher.close().await;
        }
        self.ledger.close().await?;
        match (failed, drained) {
            (Some((name, Err(error))), _) => Err(error.context(format!("the {name} failed"))),
            (Some((name, Ok(()))), _) => bail!("the {name} ended by itself"),
            (None, Ok(Some(error))) => Err(error),
            (None, Ok(None)) => {
                tracing::info!("stopped");
                Ok(())
            }
            (None, Err(_)) => {
                bail!("not everything was finished in {DRAIN:?}; what was left is done by the next start")
            }
        }
    }
}

/// The first part that ends, which none should.
async fn ended(parts: &mut JoinSet<(&'static str, Result<()>)>) -> (&'static str, Result<()>) {
    match parts.join_next().await {
        Some(part) => outcome_of(part),
        None => pending().await,
    }
}

fn outcome_of(part: Result<(&'static str, Result<()>), JoinError>) -> (&'static str, Result<()>) {
    part.unwrap_or_else(|panicked| ("program", Err(panicked.into())))
}
