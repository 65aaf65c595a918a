//! `/health/live` and `/health/ready` (a webhook can be committed now). Open to everyone: they show no host, user or error text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, SecondsFormat, Utc};
use queues::ConnectionState;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::sampled::Sampled;
use crate::ledger::{Ledger, LedgerError, Situation};
use crate::worker::CircuitState;

/// How long the database is not asked again.
const FRESH: Duration = Duration::from_secs(1);
/// Below the usual timeouts of orchestrators.
const DATABASE_TIME_LIMIT: Duration = Duration::from_secs(2);

/// Is the process alive
///
/// Checks nothing else: restarting a process does not bring its database back.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    operation_id = "live",
    responses((status = 200, description = "The process runs and answers.", body = Liveness)),
)]
pub(crate) async fn live() -> Json<Liveness> {
    Json(Liveness { status: Status::Ok })
}

/// Can a webhook be committed now
///
/// With the state of each part, and the reason. `stripe` is the circuit breaker: this process's, or in `clawback serve` that of
/// the workers. `workers` says whether any is alive, `pauses` whether an operator has paused calls; both are absent in `clawback
/// worker`, like `broker`, since it does not publish.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    operation_id = "ready",
    responses(
        (status = 200, description = "Webhooks can be committed. `degraded`: their jobs wait for the broker or for \
            Stripe.", body = Readiness),
        (status = 503, description = "The database does not answer, or lacks migrations.", body = Readiness),
    ),
)]
pub(crate) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Readiness>) {
    let Found { database, migrations, situation } = look_at_database(&state).await;
    let serves = state.broker.is_some();
    let broker = state.broker.map(|broker| check_broker(&broker.borrow(), OUTBOX));
    let consumers =
        state.consumers.iter().map(|consumer| check_broker(&consumer.borrow(), "jobs wait in their queues"));
    let consumers = consumers.reduce(|worst, part| if worst.status == Status::Ok { part } else { worst });
    let own = state.stripe.map(|stripe| check_stripe(&stripe.borrow()));
    let works = own.is_some();
    let stripe = own.or_else(|| check_workers_stripe(situation.as_deref()?));
    let workers = situation.as_deref().filter(|_| serves).map(|situation| check_workers(situation, works));
    let pauses = situation.as_deref().filter(|_| serves).and_then(check_pauses);
    let stopping = state.leaving.is_cancelled().then(|| Part::unavailable("told to stop, and about to"));
    let readiness = Readiness::of(Parts { database, migrations, broker, consumers, stripe, workers, pauses, stopping });
    let status = match readiness.status {
        Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Status::Ok | Status::Degraded => StatusCode::OK,
    };
    (status, Json(readiness))
}

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Liveness {
    /// Always `ok`.
    status: Status,
}

/// Whether webhooks can be committed, and the state of each part.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// The worst consequence of the parts.
    status: Status,
    /// Each part.
    parts: Parts,
}

/// The parts that are checked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Parts {
    /// Whether the database answers.
    database: Part,
    /// Whether the schema is up to date.
    migrations: Part,
    /// The connection for publishing jobs. Absent in a process that does not publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    broker: Option<Part>,
    /// The connections of the consumers of jobs. Absent without a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    consumers: Option<Part>,
    /// The circuit breaker. Absent where no worker tells of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stripe: Option<Part>,
    /// Whether a worker is alive. Absent in a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    workers: Option<Part>,
    /// There while an operator has paused calls. Absent in a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pauses: Option<Part>,
    /// There once the process was told to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stopping: Option<Part>,
}

/// The state of one part.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Part {
    /// Its status.
    status: Status,
    /// Why it is not `ok`, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// The status of the process, or of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HealthStatus)]
pub(crate) enum Status {
    /// All is well.
    Ok,
    /// Webhooks are committed; their jobs wait.
    Degraded,
    /// Webhooks can't be committed.
    Unavailable,
}

impl Readiness {
    fn of(parts: Parts) -> Self {
        let needed = [Some(&parts.database), Some(&parts.migrations), parts.stopping.as_ref()];
        let status = if needed.into_iter().flatten().any(|part| part.status != Status::Ok) {
            Status::Unavailable
        } else {
            let may_wait = [&parts.broker, &parts.consumers, &parts.stripe, &parts.workers, &parts.pauses];
            let waits = may_wait.into_iter().flatten().any(|part| part.status != Status::Ok);
            if waits { Status::Degraded } else { Status::Ok }
        };
        Self { status, parts }
    }
}

impl Part {
    fn ok() -> Self {
        Self { status: Status::Ok, reason: None }
    }

    fn unavailable(reason: impl Into<String>) -> Self {
        Self { status: Status::Unavailable, reason: Some(reason.into()) }
    }

    fn degraded(reason: impl Into<String>) -> Self {
        Self { status: Status::Degraded, reason: Some(reason.into()) }
    }
}

/// The last look at the database, and what the log has been told of those that failed.
#[derive(Debug, Default)]
pub struct Looked {
    last: Option<Look>,
    failed: Sampled,
}

/// What a look at the database found, and when.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    found: Found,
}

/// What the database says.
#[derive(Clone, Debug)]
struct Found {
    database: Part,
    migrations: Part,
    /// None without the tables.
    situation: Option<Arc<Situation>>,
}

/// The route is open to everyone: whoever asks, the database is asked by one, and once a second.
async fn look_at_database(state: &ApiState) -> Found {
    let mut looked = state.database.lock().await;
    match &looked.last {
        Some(look) if look.at.elapsed() < FRESH => look.found.clone(),
        _ => {
            let found = check_database(&state.ledger, &looked.failed).await;
            looked.last.insert(Look { found, at: Instant::now() }).found.clone()
        }
    }
}

async fn check_database(ledger: &Ledger, failed: &Sampled) -> Found {
    let unknown = || Part::unavailable("not known without the database");
    let checks = async {
        ledger.ping().await?;
        ledger.pending_migrations().await
    };
    match tokio::time::timeout(DATABASE_TIME_LIMIT, checks).await {
        Ok(Ok(pending)) => {
            if let Some(series) = failed.ended(Instant::now()) {
                tracing::info!(
                    failed = series.total,
                    seconds = series.lasted.as_secs(),
                    "the database can be reached again"
                );
            }
            let situation = tokio::time::timeout(DATABASE_TIME_LIMIT, ledger.situation()).await;
            let situation = situation.ok().and_then(Result::ok);
            Found { database: Part::ok(), migrations: migrations(pending), situation }
        }
        Ok(Err(error)) => {
            Found { database: unreachable_database(&error, failed), migrations: unknown(), situation: None }
        }
        Err(_) => {
            let reason = format!("the database did not answer within {} s", DATABASE_TIME_LIMIT.as_secs());
            Found { database: Part::unavailable(reason), migrations: unknown(), situation: None }
        }
    }
}

fn unreachable_database(error: &LedgerError, failed: &Sampled) -> Part {
    if let Some(more) = failed.occurred(Instant::now()) {
        tracing::warn!(%error, more, "not ready: the database can't be reached");
    }
    Part::unavailable("the database can't be reached; the log says why")
}

fn migrations(pending: usize) -> Part {
    match pending {
        0 => Part::ok(),
        pending => Part::unavailable(format!("{pending} pending; run `clawback migrate up`")),
    }
}

/// What Stripe answered is for the log: this response is open to everyone.
fn check_stripe(state: &CircuitState) -> Part {
    match state {
        CircuitState::Closed => Part::ok(),
        CircuitState::Open(outage) | CircuitState::HalfOpen(outage) => Part::degraded(format!(
            "the circuit breaker is {state}: Stripe can't be used since {}, jobs wait ({}); `clawback processes` says more",
            short(outage.since),
            outage.why
        )),
    }
}

/// As the workers tell of it.
fn check_workers_stripe(situation: &Situation) -> Option<Part> {
    let Some(worker) = situation.processes.outage() else {
        return situation.processes.workers().next().map(|_| Part::ok());
    };
    let (state, since) = (worker.breaker?, worker.outage_since?);
    Some(Part::degraded(format!(
        "the circuit breaker of a worker is {state}: Stripe can't be used since {}, jobs wait; `clawback processes` says why",
        short(since)
    )))
}

/// `works`: this process has one of its own.
fn check_workers(situation: &Situation, works: bool) -> Part {
    if works || situation.processes.workers().next().is_some() {
        return Part::ok();
    }
    let missing = situation.processes.missing.iter().filter(|process| process.breaker.is_some());
    Part::degraded(match missing.map(|process| process.seen_at).max() {
        Some(last) => {
            format!("no worker is alive, the last was heard of {}: jobs wait; start `clawback worker`", short(last))
        }
        None => "no worker is alive: jobs wait; start `clawback worker`".to_owned(),
    })
}

/// Who paused it, and why, is for those who may read.
fn check_pauses(situation: &Situation) -> Option<Part> {
    let oldest = situation.pauses.first()?;
    let what = match situation.pauses.iter().find(|pause| pause.seller.is_none()) {
        Some(_) => "all calls are".to_owned(),
        None => format!("calls about {} sellers are", situation.pauses.len()),
    };
    let since = short(oldest.created_at);
    Some(Part::degraded(format!("{what} paused by an operator, since {since}; GET /v1/pauses says why")))
}

fn short(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Where jobs are that the relay can't publish.
const OUTBOX: &str = "jobs wait in the outbox";

/// `wait` says where jobs are meanwhile.
fn check_broker(state: &ConnectionState, wait: &str) -> Part {
    match state {
        ConnectionState::Connected => Part::ok(),
        ConnectionState::Blocked => Part::degraded(format!("the broker accepts nothing: memory or disk alarm; {wait}")),
        ConnectionState::Reconnecting { since, .. } => {
            let since = short(*since);
            Part::degraded(format!("no connection since {since}; {wait}, the log says why"))
        }
        ConnectionState::Refused { .. } => {
            Part::degraded(format!("the broker keeps refusing the credentials; {wait}, the log says why"))
        }
        _ => Part::degraded("the connection was closed for good; the process is stopping"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::sampled::captured_log;

    fn readiness(pending: usize, broker: Option<ConnectionState>) -> Value {
        let broker = broker.as_ref().map(|state| check_broker(state, OUTBOX));
        let (consumers, stripe, workers, pauses, stopping) = (None, None, None, None, None);
        let (database, migrations) = (Part::ok(), migrations(pending));
        let parts = Parts { database, migrations, broker, consumers, stripe, workers, pauses, stopping };
        serde_json::to_value(Readiness::of(parts)).unwrap()
    }

    fn reconnecting() -> ConnectionState {
        let since = DateTime::from_timestamp(1_792_000_000, 0).unwrap();
        ConnectionState::Reconnecting { since, last_error: Some("user hush".into()) }
    }

    #[test]
    fn everything_in_order_is_ok() {
        let expected = json!({"status": "ok", "parts": {
            "database": {"status": "ok"}, "migrations": {"status": "ok"}, "broker": {"status": "ok"},
        }});
        assert_eq!(readiness(0, Some(ConnectionState::Connected)), expected);
        assert_eq!(readiness(0, None)["parts"].get("broker"), None);
    }

    #[test]
    fn a_broker_that_accepts_nothing_only_degrades() {
        for state in [ConnectionState::Blocked, reconnecting(), ConnectionState::Closed] {
            assert_eq!(readiness(0, Some(state))["status"], "degraded");
        }
        let shown = readiness(0, Some(reconnecting())).to_string();
        assert!(shown.contains("2026-10-14") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_pending_migration_makes_it_unready_and_says_what_to_do() {
        let readiness = readiness(2, Some(reconnecting()));
        assert_eq!(readiness["status"], "unavailable");
        assert_eq!(readiness["parts"]["migrations"]["reason"], "2 pending; run `clawback migrate up`");
    }

    #[test]
    fn a_database_that_is_away_is_told_once_and_not_at_each_probe() {
        let (log, _until_the_end) = captured_log();
        let failed = Sampled::default();
        for _ in 0..5 {
            unreachable_database(&LedgerError::Conflict("it is away".to_owned()), &failed);
        }
        assert_eq!(log.text().matches("not ready").count(), 1, "{}", log.text());
    }
}
