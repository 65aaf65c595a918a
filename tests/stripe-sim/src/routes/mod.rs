//! The simulator's two doors: `/v1`, as Stripe's, and `/_sim`, by which hands set faults and look at the ledger.

mod door;
mod v1;

use std::sync::Arc;

use axum::Router;

use crate::state::Shared;

pub(crate) use v1::Cut;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().nest("/_sim", door::router()).merge(v1::router()).with_state(shared)
}
