//! The door's part for payments, refunds, disputes and webhooks.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Done, Door, bad, done};
use crate::control::{self, NewDispute, NewPayment, NewRefund};
use crate::events::{self, Endpoint};
use crate::ledger::{DisputeStatus, RefundStatus};
use crate::state::Shared;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/payments", post(pay))
        .route("/charges/{id}/capture", post(capture))
        .route("/charges/{id}/void", post(void))
        .route("/refunds", post(refund))
        .route("/refunds/{id}/status", post(move_refund))
        .route("/refunds/{id}/reference", post(refer))
        .route("/disputes", post(dispute))
        .route("/disputes/{id}/status", post(move_dispute))
        .route("/disputes/{id}/reinstate", post(reinstate))
        .route("/events", get(list_events).post(add_event))
        .route("/webhooks", post(sign_webhooks))
        .route("/webhook_endpoints", post(add_endpoint))
        .route("/webhook_endpoints/{id}/deliver", post(deliver))
}

async fn pay(State(shared): Door, Json(new): Json<NewPayment>) -> Done {
    shown(shared.change(|state| control::pay(state, new).map(|id| json!(state.ledger.charges.get(&id)))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    /// Null: all that is left.
    #[serde(default)]
    amount: Option<i64>,
    /// Whether the rest is released.
    #[serde(default = "yes")]
    r#final: bool,
}

fn yes() -> bool {
    true
}

async fn capture(State(shared): Door, Path(id): Path<String>, Json(taken): Json<Taken>) -> Done {
    done(shared.change(|state| control::capture(state, &id, taken.amount, taken.r#final)))
}

async fn void(State(shared): Door, Path(id): Path<String>) -> Done {
    done(shared.change(|state| control::void(state, &id)))
}

async fn refund(State(shared): Door, Json(new): Json<NewRefund>) -> Done {
    shown(shared.change(|state| control::refund(state, new).map(|id| json!(state.ledger.refunds.get(&id)))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundMove {
    status: RefundStatus,
    #[serde(default)]
    failure_reason: Option<String>,
}

async fn move_refund(State(shared): Door, Path(id): Path<String>, Json(to): Json<RefundMove>) -> Done {
    done(shared.change(|state| control::move_refund(state, &id, to.status, to.failure_reason)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    reference: String,
}

async fn refer(State(shared): Door, Path(id): Path<String>, Json(Reference { reference }): Json<Reference>) -> Done {
    done(shared.change(|state| control::refer(state, &id, &reference)))
}

async fn dispute(State(shared): Door, Json(new): Json<NewDispute>) -> Done {
    shown(shared.change(|state| control::open_dispute(state, new).map(|id| json!(state.ledger.disputes.get(&id)))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisputeMove {
    status: DisputeStatus,
}

async fn move_dispute(State(shared): Door, Path(id): Path<String>, Json(to): Json<DisputeMove>) -> Done {
    done(shared.change(|state| control::move_dispute(state, &id, to.status)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reinstated {
    amount: i64,
}

async fn reinstate(State(shared): Door, Path(id): Path<String>, Json(Reinstated { amount }): Json<Reinstated>) -> Done {
    done(shared.change(|state| control::reinstate(state, &id, amount)))
}

async fn list_events(State(shared): Door) -> Json<Value> {
    Json(shared.read(|state| json!(state.events.all())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEvent {
    r#type: String,
    object: String,
}

async fn add_event(State(shared): Door, Json(new): Json<NewEvent>) -> Done {
    shown(shared.change(|state| events::happen(state, &new.r#type, &new.object).map(|event| json!(event))))
}

async fn sign_webhooks(State(shared): Door, Json(endpoint): Json<Endpoint>) -> Json<Value> {
    Json(shared.read(|state| json!(events::render_all(state, &endpoint))))
}

async fn add_endpoint(State(shared): Door, Json(endpoint): Json<Endpoint>) -> Json<Value> {
    let id = shared.change(|state| {
        let now = state.clock.now();
        state.events.register(endpoint, now)
    });
    Json(json!({ "id": id }))
}

async fn deliver(State(shared): Door, Path(id): Path<String>) -> Done {
    shown(events::deliver(&shared, &id).await.map(|deliveries| json!({ "deliveries": deliveries })))
}

fn shown(result: Result<Value, String>) -> Done {
    result.map(Json).map_err(bad)
}
