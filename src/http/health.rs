//! `/health/live` and `/health/ready`, for orchestrators. Open to everyone, so they show no host, user or error text.
//!
//! Ready means that a webhook can be committed now. That needs no broker: the outbox keeps jobs until it is back.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::SecondsFormat;
use queues::ConnectionState;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use crate::ledger::{Ledger, LedgerError};
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
    security(()),
)]
pub(crate) async fn live() -> Json<Liveness> {
    Json(Liveness { status: Status::Ok })
}

/// Can a webhook be committed now
///
/// With the state of each part, and the reason. `stripe` is the worker's circuit breaker, absent without a worker
/// (`clawback serve`). `broker` is absent in a process that does not publish (`clawback worker`).
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
    security(()),
)]
pub(crate) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Readiness>) {
    let (database, migrations) = look_at_database(&state).await;
    let broker = state.broker.map(|broker| check_broker(&broker.borrow()));
    let consumers = state.consumers.iter().map(|consumer| check_broker(&consumer.borrow()));
    let consumers = consumers.reduce(|worst, part| if worst.status == Status::Ok { part } else { worst });
    let stripe = state.stripe.map(|stripe| check_stripe(&stripe.borrow()));
    let stopping = state.leaving.is_cancelled().then(|| Part::unavailable("told to stop, and about to"));
    let readiness = Readiness::of(Parts { database, migrations, broker, consumers, stripe, stopping });
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
    /// The circuit breaker. Absent without a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stripe: Option<Part>,
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
            let may_wait = [&parts.broker, &parts.consumers, &parts.stripe];
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

/// What a look at the database found, and when.
#[derive(Clone, Debug)]
pub struct Look {
    at: Instant,
    found: (Part, Part),
}

/// The route is open to everyone: whoever asks, the database is asked by one, and once a second.
async fn look_at_database(state: &ApiState) -> (Part, Part) {
    let mut last = state.database.lock().await;
    match &*last {
        Some(look) if look.at.elapsed() < FRESH => look.found.clone(),
        _ => last.insert(Look { found: check_database(&state.ledger).await, at: Instant::now() }).found.clone(),
    }
}

async fn check_database(ledger: &Ledger) -> (Part, Part) {
    let checks = async {
        ledger.ping().await?;
        ledger.pending_migrations().await
    };
    match tokio::time::timeout(DATABASE_TIME_LIMIT, checks).await {
        Ok(Ok(pending)) => (Part::ok(), migrations(pending)),
        Ok(Err(error)) => unreachable_database(&error),
        Err(_) => {
            let reason = format!("the database did not answer within {} s", DATABASE_TIME_LIMIT.as_secs());
            (Part::unavailable(reason), Part::unavailable("not known without the database"))
        }
    }
}

fn unreachable_database(error: &LedgerError) -> (Part, Part) {
    tracing::warn!(%error, "not ready: the database can't be reached");
    let reason = "the database can't be reached; the log says why";
    (Part::unavailable(reason), Part::unavailable("not known without the database"))
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
            "the circuit breaker is {state}: Stripe can't be used since {}, jobs wait; the log says why",
            outage.since.to_rfc3339_opts(SecondsFormat::Secs, true)
        )),
    }
}

fn check_broker(state: &ConnectionState) -> Part {
    match state {
        ConnectionState::Connected => Part::ok(),
        ConnectionState::Blocked => {
            Part::degraded("the broker accepts nothing: memory or disk alarm; jobs wait in the outbox")
        }
        ConnectionState::Reconnecting { since, .. } => {
            let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
            Part::degraded(format!("no connection since {since}; jobs wait in the outbox, the log says why"))
        }
        ConnectionState::Refused { .. } => {
            Part::degraded("the broker keeps refusing the credentials; jobs wait in the outbox, the log says why")
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

    fn readiness(pending: usize, broker: Option<ConnectionState>) -> Value {
        let broker = broker.as_ref().map(check_broker);
        let (consumers, stripe, stopping) = (None, None, None);
        let parts =
            Parts { database: Part::ok(), migrations: migrations(pending), broker, consumers, stripe, stopping };
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
}
