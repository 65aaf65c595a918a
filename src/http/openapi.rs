//! The OpenAPI 3.1 document of every HTTP route, at `/openapi.json`, in the open.
//!
//! Each handler describes itself where it is written (`#[utoipa::path]`), and is listed here; `problems` adds what the layers
//! around the handlers answer. `app` merges [`routes`] into the server. A test compares the document with the router: a
//! route that is forgotten here fails it.

mod problems;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi as _};

use self::problems::OfTheLayers;
use super::problem::ProblemBody;
use super::{health, metrics, payments, refunds, reversals, transfers, webhooks};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Clawback",
        description = "Takes back from sellers what a refund makes them owe.\n\nAmounts are in minor units (cents) of their \
            currency, times are RFC 3339 in UTC, ids of Clawback's own are UUIDv7. Errors are `application/problem+json` \
            (RFC 9457); their `type` is stable. Every answer carries `x-request-id`: the caller's own, if it is at most 128 \
            characters of letters, digits and `-_.:/=+`, else a new one. Bodies may have 1 MiB.",
    ),
    paths(
        payments::register,
        payments::show,
        transfers::show,
        transfers::retry,
        refunds::report,
        refunds::show,
        reversals::list,
        reversals::show,
        reversals::replay,
        webhooks::receive_stripe,
        webhooks::receive_hyperswitch,
        health::live,
        health::ready,
        metrics::show,
        show,
    ),
    tags(
        (name = "payments", description = "What was paid, and what went to sellers."),
        (name = "transfers", description = "What one seller got, and what came back of it."),
        (name = "refunds", description = "What providers reported."),
        (name = "reversals", description = "What is taken back."),
        (name = "webhooks", description = "For payment providers: signed, without a token, without a limit of requests."),
        (name = "health", description = "For orchestrators and for Prometheus."),
    ),
    components(schemas(ProblemBody)),
    modifiers(&Tokens, &OfTheLayers),
)]
struct Document;

/// The two bearer tokens.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = |description: &str| {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(description.to_owned());
            SecurityScheme::Http(scheme)
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("operate", bearer("`API_TOKEN`: may do everything."));
        components.add_security_scheme("read", bearer("`API_READ_TOKEN`: may only read."));
    }
}

/// `GET /openapi.json`.
pub fn routes() -> Router {
    Router::new().route("/openapi.json", get(show))
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value)),
    security(()),
)]
pub(crate) async fn show() -> Json<OpenApi> {
    Json(Document::openapi())
}
