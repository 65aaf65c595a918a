//! The HTTP door: webhooks, the API, health, and metrics. `app` merges the routes and wraps them in [`complete`].

mod auth;
pub(crate) mod broker;
pub(crate) mod calls;
pub(crate) mod claims;
pub(crate) mod disputes;
pub(crate) mod doctor;
pub(crate) mod export;
mod extract;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod json;
mod limits;
pub(crate) mod metrics;
pub mod openapi;
pub(crate) mod operations;
mod operator;
mod page;
pub(crate) mod pauses;
pub(crate) mod payments;
pub(crate) mod problem;
pub(crate) mod processes;
pub(crate) mod reconcile;
pub(crate) mod refunds;
mod request_id;
pub(crate) mod reversals;
mod sampled;
pub(crate) mod sellers;
mod stream;
pub(crate) mod summary;
pub(crate) mod trace;
pub(crate) mod transfers;
pub mod webhooks;

use std::fmt::Debug;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::operator::Surveys;
use crate::operator::doctor::Doctor;
use crate::reconcile::StripeNow;
use crate::telemetry::Recorder;
use crate::worker::{CircuitState, Limiter};

use self::problem::Kind;
use self::sampled::Sampled;

pub(crate) use self::auth::SessionKey;
pub use self::auth::{Rights, Tokens};
pub(crate) use self::extract::Parameter;
pub(crate) use self::page::{Currency, Cursor, Order, Position, TextCursor, Time, Yes, YesNo, recorded};
pub(crate) use self::problem::Problem;

/// The largest body that a route reads.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct ApiState {
    /// Stores payments and answers all reads.
    pub ledger: Ledger,
    /// Guard `/v1` and `/metrics`.
    pub tokens: Tokens,
    /// The outbox's connection; `None` in a process that does not publish.
    pub broker: Option<watch::Receiver<queues::ConnectionState>>,
    /// The connections of its consumers of jobs.
    pub consumers: Vec<watch::Receiver<queues::ConnectionState>>,
    /// The circuit breaker; `None` in a process without a worker.
    pub stripe: Option<watch::Receiver<CircuitState>>,
    /// The limiter; `None` in a process without a worker.
    pub limiter: Option<Arc<Limiter>>,
    /// The queues on the broker, and what `clawback doctor` finds; `None` in a process without the API.
    pub looks: Option<Looks>,
    /// What the last scrape found.
    pub figures: metrics::LastKnown,
    /// Stripe, as previews and replays of a part ask it; `None` without a key.
    pub stripe_now: Option<StripeNow>,
    /// This process's counters.
    pub recorder: Recorder,
    /// Cancelled when the process was told to stop.
    pub leaving: CancellationToken,
    /// What the last look at the database found, and whether its absence was told.
    pub database: Arc<Mutex<health::Looked>>,
}

/// What is looked at outside the ledger, as of some seconds ago.
#[derive(Clone, Debug)]
pub struct Looks {
    /// The queues on the broker.
    pub surveys: Surveys,
    /// What `clawback doctor` finds.
    pub doctor: Doctor,
}

/// `/v1/…` and `/metrics` behind bearer tokens, and `/health/…` without.
pub fn routes(state: ApiState) -> Router {
    let v1 = Router::new()
        .route("/v1/payments", post(payments::register))
        .route("/v1/payments/{payment_ref}", get(payments::show).put(payments::correct))
        .route("/v1/payments/{payment_ref}/transfers", post(payments::add_transfers))
        .route("/v1/transfers", get(transfers::list))
        .route("/v1/transfers/groups", get(transfers::groups))
        .route("/v1/transfers/groups/{key}/notes", post(transfers::note))
        .route("/v1/transfers/{id}", get(transfers::show))
        .route("/v1/transfers/{id}/retry", post(transfers::retry))
        .route("/v1/refunds", get(refunds::list).post(refunds::report))
        .route("/v1/refunds/{id}", get(refunds::show))
        .route("/v1/refunds/{id}/accept", post(refunds::accept))
        .route("/v1/refunds/{id}/acknowledge", post(refunds::acknowledge))
        .route("/v1/refunds/{id}/withdraw", post(refunds::withdraw))
        .route("/v1/disputes", get(disputes::list))
        .route("/v1/disputes/{id}", get(disputes::show))
        .route("/v1/disputes/{id}/accept", post(disputes::accept))
        .route("/v1/disputes/{id}/acknowledge", post(disputes::acknowledge))
        .route("/v1/reversals", get(reversals::list))
        .route("/v1/reversals/groups", get(reversals::groups))
        .route("/v1/reversals/groups/{key}/notes", post(reversals::note))
        .route("/v1/reversals/{id}", get(reversals::show))
        .route("/v1/reversals/{id}/replay", post(reversals::replay))
        .route("/v1/reversals/{id}/close", post(reversals::close))
        .route("/v1/sellers", get(sellers::list))
        .route("/v1/sellers/{id}", get(sellers::show))
        .route("/v1/summary", get(summary::show))
        .route("/v1/trace/{id}", get(trace::show))
        .route("/v1/queues", get(broker::list))
        .route("/v1/doctor", get(doctor::show))
        .route("/v1/calls", get(calls::list))
        .route("/v1/calls/{id}/replay", post(calls::replay))
        .route("/v1/processes", get(processes::list))
        .route("/v1/breaker/probe", post(processes::probe))
        .route("/v1/pauses", get(pauses::list).post(pauses::pause))
        .route("/v1/pauses/{id}/resume", post(pauses::resume))
        .route("/v1/history", get(history::list))
        .route("/v1/export", get(export::show))
        .route("/v1/reconcile/runs", get(reconcile::list))
        .route("/v1/reconcile/runs/{id}", get(reconcile::show))
        .route("/v1/operations", get(operations::list).post(operations::preview))
        .route("/v1/operations/{id}", get(operations::show))
        .route("/v1/operations/{id}/items", get(operations::items))
        .route("/v1/operations/{id}/start", post(operations::start))
        .route("/v1/operations/{id}/abort", post(operations::abort))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .route_layer(middleware::from_fn_with_state(state.tokens.clone(), auth::require));
    v1.with_state(state.clone()).merge(watching_routes(state))
}

/// `/metrics` behind bearer tokens, and `/health/…` without: everything in a process without the API.
pub fn watching_routes(state: ApiState) -> Router {
    let metrics = Router::new()
        .route("/metrics", get(metrics::show))
        .route_layer(middleware::from_fn_with_state(state.tokens.clone(), auth::require));
    let health = Router::new().route("/health/live", get(health::live)).route("/health/ready", get(health::ready));
    metrics.merge(health).with_state(state)
}

/// Adds what all routes share: request ids, a time limit, one log line for each request, and problems for unknown routes and
/// methods. Call it once, on the merged routes.
pub fn complete(routes: Router) -> Router {
    routes
        .fallback(async || Problem::not_found("no such route; /openapi.json lists them"))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed, Kind::MethodNotAllowed.row().when))
        .layer(middleware::from_fn(request_id::limit_time))
        .layer(middleware::from_fn_with_state(Arc::<Sampled>::default(), request_id::log))
        .layer(middleware::from_fn(request_id::identify))
}

fn unknown(what: &str, id: impl Debug) -> Problem {
    Problem::not_found(format!("no {what} has the id {id:?}"))
}
