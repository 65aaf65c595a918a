//! What the layers around the handlers answer: tokens, limits, bodies that can't be read, and a database that is away. Added
//! to every operation that it may come from, so that a handler describes only what is its own.

use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr};
use utoipa::{Modify, ToSchema};

use crate::http::problem::{ProblemBody, TYPE_BASE};

const CONTENT_TYPE: &str = "application/problem+json";

/// A problem that may come from more than one operation: status, slug, title, an example of its detail.
type Example = (u16, &'static str, &'static str, &'static str);

const MALFORMED: Example = (400, "malformed-body", "Malformed body", "EOF while parsing an object at line 1 column 2");
const UNAUTHORIZED: Example = (401, "unauthorized", "Unauthorized", "the bearer token is not one of this server's");
const FORBIDDEN: Example = (403, "forbidden", "Forbidden", "this token may only read; use API_TOKEN");
const NOT_FOUND: Example = (404, "not-found", "Not found", "there is no payment of this id");
const SWITCHED_OFF: Example = (404, "switched-off", "Not configured", "the API is off; set API_TOKEN to turn it on");
const TOO_LARGE: Example = (413, "body-too-large", "Body too large", "at most 1 MiB is taken");
const NO_JSON: Example = (
    415,
    "unsupported-media-type",
    "Unsupported media type",
    "the body must come with `Content-Type: application/json`",
);
const INVALID: Example =
    (422, "invalid-field", "Invalid field", "amount: 0 is not an amount: minor units, at least 1, are allowed");
const TOO_MANY: Example = (
    429,
    "too-many-requests",
    "Too many requests",
    "this token's limit of 500 requests a second is used up; try again in 1 s",
);
const UNAVAILABLE: Example = (
    503,
    "unavailable",
    "Unavailable for now",
    "the database is unavailable; nothing was changed, send the same request again",
);
const UNSIGNED: Example = (
    400,
    "signature-missing",
    "Signature missing",
    "there is no Stripe-Signature header; only signed events are taken",
);
const BADLY_SIGNED: Example = (400, "signature-malformed", "Malformed signature", "the signature header can't be read");
const MISMATCH: Example = (
    400,
    "signature-mismatch",
    "Signature does not fit",
    "no v1 signature fits the body: it was changed on its way, or signed with another secret",
);
const STALE: Example = (
    400,
    "signature-stale",
    "Signature too old or too new",
    "it was signed more than 300 s ago, or its clock is ahead",
);

const INVALID_PARAMETER: Example = (
    400,
    "invalid-parameter",
    "Invalid parameter",
    "limit: \"0\" is not acceptable; allowed: a whole number from 1 to 200",
);
const CONFLICT: Example =
    (409, "conflict", "Conflict", "reversal 01a2… is reversed; only one that is permanently_failed is replayed");
const CHANGED: Example = (409, "stale", "Changed meanwhile", "reversal 01a2… is no longer permanently_failed");

/// Adds them.
pub(super) struct OfTheLayers;

impl Modify for OfTheLayers {
    fn modify(&self, document: &mut OpenApi) {
        for (path, item) in &mut document.paths.paths {
            for (is_safe, operation) in [(true, &mut item.get), (false, &mut item.post)] {
                let Some(operation) = operation else { continue };
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

fn problems_of(path: &str, is_safe: bool, operation: &Operation) -> Vec<Example> {
    if path.starts_with("/health/") || path == "/openapi.json" {
        return vec![UNAVAILABLE];
    }
    if path.starts_with("/webhooks/") {
        return vec![MALFORMED, UNSIGNED, BADLY_SIGNED, MISMATCH, STALE, SWITCHED_OFF, TOO_LARGE, UNAVAILABLE];
    }
    let mut problems = vec![UNAUTHORIZED, SWITCHED_OFF, TOO_MANY, UNAVAILABLE];
    if path.contains('{') {
        problems.push(NOT_FOUND);
    }
    if !is_safe {
        problems.push(FORBIDDEN);
    }
    if operation.request_body.is_some() {
        problems.extend([MALFORMED, TOO_LARGE, NO_JSON, INVALID]);
    }
    // Those that a handler has described in its own words, and left the rest to this.
    if operation.responses.responses.contains_key("409") {
        problems.extend([CONFLICT, CHANGED]);
    }
    if is_safe && operation.responses.responses.contains_key("400") {
        problems.push(INVALID_PARAMETER);
    }
    problems
}

/// Adds each problem to the answer of its status. A description that is there already stays.
fn add(operation: &mut Operation, problems: &[Example]) {
    for (status, slug, title, detail) in problems {
        let titles = || problems.iter().filter(|other| other.0 == *status).map(|other| other.2);
        let response = operation.responses.responses.entry(status.to_string());
        let response = response
            .or_insert_with(|| RefOr::T(Response::new(format!("{}.", titles().collect::<Vec<_>>().join(", or: ")))));
        let RefOr::T(response) = response else { continue };
        let content = response.content.entry(CONTENT_TYPE.to_owned());
        let content =
            content.or_insert_with(|| RefOr::T(Content::new(Some(Ref::from_schema_name(ProblemBody::name())))));
        if let RefOr::T(content) = content {
            let problem_type = format!("{TYPE_BASE}{slug}");
            let value = json!({"type": problem_type, "title": title, "status": status, "detail": detail});
            let example = ExampleBuilder::new().value(Some(value)).build();
            content.examples.insert((*slug).to_owned(), RefOr::T(example));
        }
    }
}

fn describe_headers(status: &str, response: &mut Response) {
    let mut describe = |name: &str, schema: Type, description: &str| {
        let schema = Object::with_type(SchemaType::new(schema));
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        response.headers.insert(name.to_owned(), RefOr::T(header));
    };
    describe("x-request-id", Type::String, "The request's id, for finding it in the log.");
    match status {
        "401" => describe("www-authenticate", Type::String, "The scheme that is wanted (RFC 6750)."),
        "429" => describe("retry-after", Type::Integer, "In so many seconds the request may be sent again."),
        _ => {}
    }
}
