//! The operators' and the marketplace's HTTP door: payments in, the state of everything out, and health.
//!
//! `app` merges [`routes`] with the ingress and wraps both in [`complete`]. It decides nothing about money: it checks who
//! asks, turns JSON into the ledger's types and the ledger's answers into HTTP.

mod auth;
mod body;
mod health;
mod operator;
mod payments;
mod refunds;
mod requests;
mod transfers;

use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::problem::Problem;
use crate::worker::Switch;

pub use self::auth::Tokens;

/// The largest body that is read.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct ApiState {
    /// Where payments go, and where all answers come from.
    pub ledger: Ledger,
    /// Who may do what under `/v1`.
    pub tokens: Tokens,
    /// The connection that the outbox publishes on; `None` in a process that does not publish.
    pub broker: Option<watch::Receiver<queues::ConnectionState>>,
    /// The kill switch of the worker in this process; `None` where there is none.
    pub stripe: Option<watch::Receiver<Switch>>,
}

/// `/v1/…` behind bearer tokens, and `/health/…` in the open.
pub fn routes(state: ApiState) -> Router {
    let v1 = Router::new()
        .route("/v1/payments", post(payments::register))
        .route("/v1/payments/{payment_ref}", get(payments::show))
        .route("/v1/transfers/{id}", get(transfers::show))
        .route("/v1/transfers/{id}/retry", post(transfers::retry))
        .route("/v1/refunds", post(refunds::report))
        .route("/v1/refunds/{id}", get(refunds::show))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .route_layer(middleware::from_fn_with_state(state.tokens.clone(), auth::require));
    let health = Router::new().route("/health/live", get(health::live)).route("/health/ready", get(health::ready));
    v1.merge(health).with_state(state)
}

/// Adds what every route of the server shares: a time limit, one log line a request, and problems for unknown routes and
/// wrong methods. Called once, on the merged routes.
pub fn complete(routes: Router) -> Router {
    routes
        .fallback(async || Problem::not_found("there is no such route"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn(requests::limit_time))
        .layer(middleware::from_fn(requests::log))
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
