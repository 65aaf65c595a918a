//! The door for hands and compose: objects, faults, balances, the clock, and the ledger, as JSON without
//! authentication.

mod payments;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::{Access, Fault};
use crate::operations::{add_transfer, seed_transfers, settle};
use crate::random_faults::RandomFaults;
use crate::spec::TransferSpec;
use crate::state::Shared;

type Door = State<Arc<Shared>>;
type Done = Result<Json<Value>, (StatusCode, Json<Value>)>;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/ledger", get(async |State(shared): Door| Json(shared.read(|state| json!(state.ledger)))))
        .route("/counts", get(async |State(shared): Door| Json(shared.read(|state| json!(state.ledger.counts)))))
        .route("/transfers", post(create_transfer))
        .route("/transfers/seed", post(seed))
        .route("/settings", post(change_settings))
        .route("/faults", post(add_fault).merge(delete(clear_faults)))
        .route("/random_faults", post(set_random_faults))
        .route("/balances", post(set_balance))
        .route("/reversals/{id}/status", post(settle_reversal))
        .route("/clock", post(advance_clock))
        .route("/reset", post(reset))
        .merge(payments::router())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTransfer {
    id: String,
    amount: i64,
    currency: String,
    destination: String,
}

async fn create_transfer(State(shared): Door, Json(new): Json<NewTransfer>) -> Done {
    let NewTransfer { id, amount, currency, destination } = new;
    let spec = TransferSpec { id, amount, currency, destination };
    done(shared.change(|state| add_transfer(state, spec)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    count: u32,
    amount: i64,
}

async fn seed(State(shared): Door, Json(Seed { count, amount }): Json<Seed>) -> Done {
    done(shared.change(|state| seed_transfers(state, count, amount)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Whether a reversal without metadata shows null.
    null_metadata: bool,
}

async fn change_settings(State(shared): Door, Json(Settings { null_metadata }): Json<Settings>) -> Done {
    shared.change(|state| state.null_metadata = null_metadata);
    done(Ok(()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    /// None: any.
    #[serde(default)]
    transfer: Option<String>,
    fault: Fault,
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    on: Access,
}

fn once() -> u32 {
    1
}

async fn add_fault(State(shared): Door, Json(new): Json<NewFault>) -> Done {
    let NewFault { transfer, fault, times, on } = new;
    done(shared.change(|state| state.faults.add(transfer, on, fault, times)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Random {
    seed: u64,
    /// Of all requests, from 0 to 1.
    share: f64,
}

async fn set_random_faults(State(shared): Door, Json(Random { seed, share }): Json<Random>) -> Done {
    done(shared.change(|state| RandomFaults::new(seed, share).map(|random| state.faults.at_random(random))))
}

async fn clear_faults(State(shared): Door) -> Done {
    shared.change(|state| state.faults.clear());
    done(Ok(()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    account: String,
    /// Null: unlimited.
    amount: Option<i64>,
}

async fn set_balance(State(shared): Door, Json(Balance { account, amount }): Json<Balance>) -> Done {
    shared.change(|state| state.ledger.set_balance(&account, amount));
    done(Ok(()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    status: String,
}

async fn settle_reversal(State(shared): Door, Path(id): Path<String>, Json(ending): Json<Ending>) -> Done {
    done(shared.change(|state| settle(state, &id, &ending.status)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: u32,
}

async fn advance_clock(State(shared): Door, Json(Advance { advance_seconds }): Json<Advance>) -> Done {
    shared.change(|state| state.clock.advance(Duration::from_secs(advance_seconds.into())));
    done(Ok(()))
}

async fn reset(State(shared): Door) -> Done {
    shared.change(|state| state.reset());
    done(Ok(()))
}

fn done(result: Result<(), String>) -> Done {
    match result {
        Ok(()) => Ok(Json(json!({ "done": true }))),
        Err(error) => Err(bad(error)),
    }
}

fn bad(error: String) -> (StatusCode, Json<Value>) {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error })))
}
