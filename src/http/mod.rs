//! The operators' and the marketplace's HTTP door: payments in, the state of everything out, replays, health, and metrics.
//!
//! `app` merges [`routes`] with the ingress and wraps both in [`complete`]. It decides nothing about money: it checks who
//! asks, turns JSON into the ledger's types and the ledger's answers into HTTP. Every route is in the OpenAPI document,
//! [`openapi`]; a test compares.

mod auth;
mod exposition;
mod extract;
pub(crate) mod health;
mod limits;
pub(crate) mod metrics;
pub mod openapi;
mod operator;
pub(crate) mod payments;
pub(crate) mod problem;
mod query;
pub(crate) mod refunds;
mod request_id;
mod requests;
pub(crate) mod reversals;
pub(crate) mod transfers;
pub mod webhooks;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::telemetry::Recorder;
use crate::worker::{Limiter, Switch};

use self::problem::Problem;

pub use self::auth::Tokens;

/// The largest body that is read.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct ApiState {
    /// Where payments go, and where all answers come from.
    pub ledger: Ledger,
    /// Who may do what under `/v1`, and who may read `/metrics`.
    pub tokens: Tokens,
    /// The connection that the outbox publishes on; `None` in a process that does not publish.
    pub broker: Option<watch::Receiver<queues::ConnectionState>>,
    /// The kill switch of the worker in this process; `None` where there is none.
    pub stripe: Option<watch::Receiver<Switch>>,
    /// The limiter of the worker in this process; `None` where there is none.
    pub limiter: Option<Arc<Limiter>>,
    /// What this process has counted.
    pub recorder: Recorder,
}

/// `/v1/…` and `/metrics` behind bearer tokens, and `/health/…` in the open.
pub fn routes(state: ApiState) -> Router {
    let v1 = Router::new()
        .route("/v1/payments", post(payments::register))
        .route("/v1/payments/{payment_ref}", get(payments::show))
        .route("/v1/transfers/{id}", get(transfers::show))
        .route("/v1/transfers/{id}/retry", post(transfers::retry))
        .route("/v1/refunds", post(refunds::report))
        .route("/v1/refunds/{id}", get(refunds::show))
        .route("/v1/reversals", get(reversals::list))
        .route("/v1/reversals/{id}", get(reversals::show))
        .route("/v1/reversals/{id}/replay", post(reversals::replay))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .route_layer(middleware::from_fn_with_state(state.tokens.clone(), auth::require));
    v1.with_state(state.clone()).merge(watching_routes(state))
}

/// `/metrics` behind bearer tokens, and `/health/…` in the open: all that a process without the API serves.
pub fn watching_routes(state: ApiState) -> Router {
    let metrics = Router::new()
        .route("/metrics", get(metrics::show))
        .route_layer(middleware::from_fn_with_state(state.tokens.clone(), auth::require));
    let health = Router::new().route("/health/live", get(health::live)).route("/health/ready", get(health::ready));
    metrics.merge(health).with_state(state)
}

/// Adds what every route of the server shares: a request id, a time limit, one log line a request, and problems for
/// unknown routes and wrong methods. Called once, on the merged routes.
pub fn complete(routes: Router) -> Router {
    routes
        .fallback(async || Problem::not_found("there is no such route; /openapi.json has those that there are"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn(requests::limit_time))
        .layer(middleware::from_fn(requests::log))
        .layer(middleware::from_fn(requests::identify))
}

/// The id in a path. One that no row can have is not looked for; PostgreSQL would call a NUL character an error of ours.
fn id(path: Result<Path<String>, PathRejection>, what: &str) -> Result<String, Problem> {
    match path {
        Ok(Path(id)) if !id.contains('\0') => Ok(id),
        _ => Err(unknown(what)),
    }
}

fn unknown(what: &str) -> Problem {
    Problem::not_found(format!("there is no {what} of this id"))
}
