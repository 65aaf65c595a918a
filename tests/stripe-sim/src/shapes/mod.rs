//! What goes over the wire: Stripe's objects, lists and errors as JSON, and the answer that carries them.
//!
//! The shapes are those of API version [`crate::API_VERSION`], checked with Stripe's own SDK by
//! `check_with_stripe_sdk`. Fields that are null in an error are left out; in an object they are null.

mod payments;
mod transfers;

use std::borrow::Cow;

use axum::body::Bytes;
use serde_json::{Map, Value, json};

pub(crate) use self::payments::{application_fee, charge, dispute, fee_id, payment_intent, refund, refunds_of};
pub(crate) use self::transfers::{reversal, reversals_url, transfer};

/// An answer, as it is sent and as it is saved for an idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    /// Beyond those that every answer has.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The request that it was first given to.
    pub(crate) original_request: String,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value, request: &str) -> Answer {
        // Stripe's bodies are indented by two spaces and end with a line break.
        let body = format!("{body:#}\n").into();
        Answer {
            status,
            content_type: "application/json",
            body,
            headers: Vec::new(),
            original_request: request.to_owned(),
        }
    }

    /// What a load balancer or proxy says in Stripe's place.
    pub(crate) fn html(status: u16, title: &str, request: &str) -> Answer {
        Answer {
            status,
            content_type: "text/html",
            body: format!("<html><head><title>{status} {title}</title></head><body><h1>{title}</h1></body></html>\n")
                .into(),
            headers: Vec::new(),
            original_request: request.to_owned(),
        }
    }
}

/// Stripe's error object and the status that it comes with.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) code: Option<Cow<'static, str>>,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl ApiError {
    pub(crate) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, code: None, message: message.into(), param: None, headers: Vec::new() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "invalid_request_error", message)
    }

    pub(crate) fn code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(Cow::Borrowed(code)), ..self }
    }

    pub(crate) fn param(self, param: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> ApiError {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn unauthorized(message: String) -> ApiError {
        ApiError::new(401, "invalid_request_error", message).header("www-authenticate", "Basic realm=\"Stripe\"")
    }

    pub(crate) fn server_error() -> ApiError {
        ApiError::new(500, "api_error", "An unknown error occurred")
    }

    pub(crate) fn missing(what: &str, id: &str, param: &str) -> ApiError {
        let message = format!("No such {what}: '{id}'");
        ApiError::new(404, "invalid_request_error", message).code("resource_missing").param(param)
    }

    pub(crate) fn into_answer(self, request: &str) -> Answer {
        let mut error = Map::new();
        if let Some(code) = self.code {
            let page = code.replace('_', "-");
            error.insert("code".to_owned(), code.into_owned().into());
            error.insert("doc_url".to_owned(), format!("https://stripe.com/docs/error-codes/{page}").into());
        }
        error.insert("message".to_owned(), self.message.into());
        if let Some(param) = self.param {
            error.insert("param".to_owned(), param.into());
        }
        error.insert("request_log_url".to_owned(), format!("https://dashboard.stripe.com/test/logs/{request}").into());
        error.insert("type".to_owned(), self.kind.into());
        let answer = Answer::json(self.status, &json!({ "error": error }), request);
        Answer { headers: self.headers, ..answer }
    }
}

/// A `list`.
pub(crate) fn list(data: Vec<Value>, has_more: bool, url: &str) -> Value {
    json!({ "object": "list", "data": data, "has_more": has_more, "url": url })
}

/// The id of an object that belongs to another one and that the simulator does not keep.
pub(crate) fn related(prefix: &str, id: &str) -> String {
    format!("{prefix}{}", id.split_once('_').map_or(id, |(_, rest)| rest))
}
