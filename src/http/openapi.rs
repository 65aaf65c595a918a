//! The OpenAPI 3.1 document at `/openapi.json`: each handler describes itself, the layers around them are added from tables.

use std::sync::LazyLock;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr};
use utoipa::{Modify, OpenApi as _, ToSchema};

use super::problem::{Kind, ProblemBody, Row};
use super::{
    broker, calls, disputes, doctor, export, health, history, metrics, operations, pauses, payments, processes,
    reconcile, refunds, reversals, sellers, summary, trace, transfers, webhooks,
};
use crate::ledger::{HistoryEntity, HistoryKind, SellerDebt};

const CONTENT_TYPE: &str = "application/problem+json";

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| json!(Document::openapi()));

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Clawback",
        description = "Takes back what a refund or a lost dispute makes sellers owe.\n\nAmounts are in minor units (cents) of their currency. \
            Times are RFC 3339 in UTC. Clawback's own ids are UUIDv7; wherever a path takes an id, the provider's id works too. \
            Errors are `application/problem+json` (RFC 9457) with a stable `type`. Every response carries `x-request-id`: the \
            caller's, if it is at most 128 characters of letters, digits and `-_.:/=+`, otherwise a new one. Bodies may be up to \
            1 MiB.",
    ),
    paths(
        payments::register,
        payments::show,
        payments::correct,
        payments::add_transfers,
        transfers::list,
        transfers::groups,
        transfers::note,
        transfers::show,
        transfers::retry,
        refunds::report,
        refunds::list,
        refunds::show,
        refunds::accept,
        refunds::acknowledge,
        refunds::withdraw,
        disputes::list,
        disputes::show,
        disputes::accept,
        disputes::acknowledge,
        reversals::list,
        reversals::groups,
        reversals::note,
        reversals::show,
        reversals::replay,
        reversals::close,
        operations::preview,
        operations::list,
        operations::show,
        operations::items,
        operations::start,
        operations::abort,
        reconcile::list,
        reconcile::show,
        sellers::list,
        sellers::show,
        summary::show,
        trace::show,
        broker::list,
        doctor::show,
        calls::list,
        calls::replay,
        processes::list,
        processes::probe,
        pauses::list,
        pauses::pause,
        pauses::resume,
        history::list,
        export::show,
        webhooks::receive_stripe,
        webhooks::receive_hyperswitch,
        health::live,
        health::ready,
        metrics::show,
        show,
    ),
    tags(
        (name = "payments", description = "What buyers paid, and each seller's part of it."),
        (name = "transfers", description = "What one seller received, and what was taken back."),
        (name = "refunds", description = "What providers reported."),
        (name = "disputes", description = "What buyers dispute, as providers report it."),
        (name = "reversals", description = "What is taken back."),
        (name = "operations", description = "An operator's action on many rows."),
        (name = "reconcile", description = "Comparisons of the ledger with Stripe."),
        (name = "sellers", description = "What each seller was paid and owes."),
        (name = "overview", description = "The ledger in figures, its history, and rows for the books."),
        (name = "webhooks", description = "For payment providers: signed, without a token, without a rate limit."),
        (name = "health", description = "For orchestrators and Prometheus."),
    ),
    components(schemas(ProblemBody, HistoryEntity, HistoryKind, SellerDebt)),
    modifiers(&Tokens, &Problems),
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

/// The tokens that the layers around the handlers ask for, and the problems they answer with. A handler describes only its own.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut OpenApi) {
        for (path, item) in &mut document.paths.paths {
            for (is_safe, operation) in [(true, &mut item.get), (false, &mut item.post), (false, &mut item.put)] {
                let Some(operation) = operation else { continue };
                operation.security = Some(tokens_of(path, is_safe));
                let in_query =
                    |it: &RefOr<_>| matches!(it, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }));
                if is_safe && operation.parameters.iter().flatten().any(in_query) {
                    let described = Response::new("A parameter is unknown, or its value can't be used.");
                    operation.responses.responses.entry("400".to_owned()).or_insert(RefOr::T(described));
                }
                add(operation, &problems_of(path, is_safe, operation));
                for (status, response) in &mut operation.responses.responses {
                    if let RefOr::T(response) = response {
                        describe_headers(status, response);
                    }
                }
            }
        }
    }
}

/// Which tokens a route takes, as `auth` decides it.
fn tokens_of(path: &str, is_safe: bool) -> Vec<SecurityRequirement> {
    let needed: &[&str] = match (path.starts_with("/v1/") || path == "/metrics", is_safe) {
        (true, true) => &["read", "operate"],
        (true, false) => &["operate"],
        (false, _) => return vec![SecurityRequirement::default()],
    };
    needed.iter().map(|token| SecurityRequirement::new(*token, <[&str; 0]>::default())).collect()
}

fn problems_of(path: &str, is_safe: bool, operation: &Operation) -> Vec<Kind> {
    use Kind as K;
    if path.starts_with("/health/") || path == "/openapi.json" {
        return vec![K::Unavailable];
    }
    if path.starts_with("/webhooks/") {
        let signature = [K::SignatureMissing, K::SignatureMalformed, K::SignatureMismatch, K::SignatureStale];
        let others = [K::MalformedBody, K::SwitchedOff, K::BodyTooLarge, K::Overloaded, K::Unavailable];
        return [&signature[..], &others].concat();
    }
    let mut problems = vec![K::Unauthorized, K::SwitchedOff, K::TooManyRequests, K::Unavailable];
    if path.contains('{') {
        problems.push(K::NotFound);
    }
    if !is_safe {
        problems.extend([K::Forbidden, K::Overloaded]);
    }
    if operation.request_body.is_some() {
        problems.extend([K::MalformedBody, K::BodyTooLarge, K::UnsupportedMediaType, K::InvalidField]);
    }
    // A handler that may answer with these describes the status itself.
    if operation.responses.responses.contains_key("409") {
        problems.extend([K::Conflict, K::Stale]);
    }
    if is_safe && operation.responses.responses.contains_key("400") {
        problems.push(K::InvalidParameter);
    }
    problems
}

/// Adds each problem to the response of its status. A description by the handler stays.
fn add(operation: &mut Operation, problems: &[Kind]) {
    for kind in problems {
        let Row { status, slug, title, when } = kind.row();
        let rows = problems.iter().map(|other| other.row()).filter(|other| other.status == status);
        let titles = rows.map(|row| row.title).collect::<Vec<_>>().join(", or: ");
        let response = operation.responses.responses.entry(status.to_string());
        let RefOr::T(response) = response.or_insert_with(|| RefOr::T(Response::new(format!("{titles}.")))) else {
            continue;
        };
        let content = response.content.entry(CONTENT_TYPE.to_owned());
        let schema = || RefOr::T(Content::new(Some(Ref::from_schema_name(ProblemBody::name()))));
        if let RefOr::T(content) = content.or_insert_with(schema) {
            let value = json!({"type": kind.uri(), "title": title, "status": status, "detail": when});
            content.examples.insert(slug.to_owned(), RefOr::T(ExampleBuilder::new().value(Some(value)).build()));
        }
    }
}

fn describe_headers(status: &str, response: &mut Response) {
    let mut describe = |name: &str, schema: Type, description: &str| {
        let schema = Object::with_type(SchemaType::new(schema));
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        response.headers.insert(name.to_owned(), RefOr::T(header));
    };
    describe("x-request-id", Type::String, "The request's id, as in the log.");
    match status {
        "401" => describe("www-authenticate", Type::String, "The required scheme (RFC 6750)."),
        "429" | "503" => describe("retry-after", Type::Integer, "Seconds after which the request may be sent again."),
        _ => {}
    }
}

/// The schema of this name; null if the document has none.
pub(super) fn component(name: &str) -> &'static Value {
    &DOCUMENT["components"]["schemas"][name]
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
    responses((status = 200, description = "OpenAPI 3.1.", body = Value)),
)]
pub(crate) async fn show() -> Json<&'static Value> {
    Json(&DOCUMENT)
}
