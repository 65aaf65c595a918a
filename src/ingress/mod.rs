//! Where payment providers tell of refunds: verify, parse, hand to the ledger, answer.
//!
//! `app` merges [`routes`] into the server. An answer of 2xx means that the event is committed; with every other one the
//! provider sends it again. It knows neither the queue nor Stripe's API, and looks at no body before its signature.

pub mod hyperswitch;
mod reading;
pub mod signature;
pub mod stripe;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, post};
use axum::{Json, Router};
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::SecretList;
use crate::ledger::{Ledger, Receipt};
use crate::problem::Problem;

pub use self::reading::MalformedEvent;
use self::signature::SignatureError;

const STRIPE_HEADER: &str = "stripe-signature";
const HYPERSWITCH_HEADER: &str = "x-webhook-signature-512";

/// The largest body that is read: the providers' events are far below it.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct IngressState {
    /// Where verified events go.
    pub ledger: Ledger,
    /// The signing secrets of Stripe's endpoints; without it, `POST /webhooks/stripe` answers 404.
    pub stripe_webhook_secret: Option<SecretList>,
    /// Hyperswitch's payment response hash keys; without it, `POST /webhooks/hyperswitch` answers 404.
    pub hyperswitch_webhook_secret: Option<SecretList>,
}

#[derive(Clone)]
pub(crate) struct Endpoint {
    ledger: Ledger,
    secrets: SecretList,
}

/// `POST /webhooks/stripe` and `POST /webhooks/hyperswitch`.
pub fn routes(state: IngressState) -> Router {
    let IngressState { ledger, stripe_webhook_secret, hyperswitch_webhook_secret } = state;
    let endpoint = |secrets| Endpoint { ledger: ledger.clone(), secrets };
    let stripe = match stripe_webhook_secret {
        Some(secrets) => post(receive_stripe).with_state(endpoint(secrets)),
        None => any(async || is_off("Stripe", "STRIPE_WEBHOOK_SECRET")),
    };
    let hyperswitch = match hyperswitch_webhook_secret {
        Some(secrets) => post(receive_hyperswitch).with_state(endpoint(secrets)),
        None => any(async || is_off("Hyperswitch", "HYPERSWITCH_WEBHOOK_SECRET")),
    };
    Router::new()
        .route("/webhooks/stripe", stripe)
        .route("/webhooks/hyperswitch", hyperswitch)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

fn is_off(provider: &str, setting: &str) -> Problem {
    Problem::switched_off(format!("webhooks of {provider} are not received here; set {setting} to turn them on"))
}

/// Stripe's events
///
/// Signed, without a token. An answer of 2xx means that the event is committed; with every other one Stripe sends it
/// again.
#[utoipa::path(
    post,
    path = "/webhooks/stripe",
    tag = "webhooks",
    operation_id = "receiveStripe",
    params(("Stripe-Signature" = String, Header, description = "`t=…,v1=…`, as Stripe signs it.")),
    request_body(content = serde_json::Value, description = "An event of Stripe's."),
    responses((status = 200, description = "Committed, or known before, or of no interest.", body = Received)),
    security(()),
)]
pub(crate) async fn receive_stripe(
    State(endpoint): State<Endpoint>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Received>, Problem> {
    let body = body?;
    let header = headers.get(STRIPE_HEADER).ok_or_else(|| unsigned("Stripe-Signature"))?;
    let header = header.to_str().map_err(|_| SignatureError::Malformed)?;
    signature::verify(header, &body, &endpoint.secrets, Utc::now())?;
    let event = stripe::parse(&body)?;
    let receipt = endpoint.ledger.receive(event).await?;
    Ok(Json(Received::from(receipt)))
}

/// Hyperswitch's events
///
/// Signed, without a token. An answer of 2xx means that the event is committed; with every other one Hyperswitch sends it
/// again.
#[utoipa::path(
    post,
    path = "/webhooks/hyperswitch",
    tag = "webhooks",
    operation_id = "receiveHyperswitch",
    params(("x-webhook-signature-512" = String, Header, description = "HMAC-SHA512 of the body, in hex.")),
    request_body(content = serde_json::Value, description = "An event of Hyperswitch's."),
    responses((status = 200, description = "Committed, or known before, or of no interest.", body = Received)),
    security(()),
)]
pub(crate) async fn receive_hyperswitch(
    State(endpoint): State<Endpoint>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Received>, Problem> {
    let body = body?;
    let header = headers.get(HYPERSWITCH_HEADER).ok_or_else(|| unsigned(HYPERSWITCH_HEADER))?;
    let header = header.to_str().map_err(|_| hyperswitch::signature::SignatureError::Malformed)?;
    hyperswitch::signature::verify(header, &body, &endpoint.secrets)?;
    let event = hyperswitch::parse(&body)?;
    let receipt = endpoint.ledger.receive(event).await?;
    Ok(Json(Received::from(receipt)))
}

/// What the provider is told. Programs of operators read it too, in the provider's dashboard.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"received": true, "outcome": "accepted", "reversals": 2}))]
pub(crate) struct Received {
    /// Always true.
    received: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What became of the event.
#[derive(Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[schema(as = WebhookOutcome)]
pub(crate) enum Outcome {
    /// A refund was recorded.
    Accepted {
        /// How many reversals it has led to.
        reversals: usize,
    },
    /// Its payment is not registered yet; it waits for it.
    Unmatched,
    /// A refund has failed after it had succeeded.
    Failed {
        /// How many reversals nobody owes any more.
        called_off: usize,
        /// What an operator has to do about the others.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        attention: Option<String>,
    },
    /// It was received before.
    Duplicate,
    /// It is not about money that went back.
    Ignored {
        /// Why.
        reason: String,
    },
}

impl From<Receipt> for Received {
    fn from(receipt: Receipt) -> Self {
        let outcome = match receipt {
            Receipt::Accepted { reversals } => Outcome::Accepted { reversals },
            Receipt::Unmatched => Outcome::Unmatched,
            Receipt::Failed { called_off, attention } => Outcome::Failed { called_off, attention },
            Receipt::Duplicate => Outcome::Duplicate,
            Receipt::Ignored { reason } => Outcome::Ignored { reason },
        };
        Self { received: true, outcome }
    }
}

fn unsigned(header: &str) -> Problem {
    tracing::warn!(header, "webhook refused: not signed");
    let detail = format!("there is no {header} header; only the provider's signed events are taken");
    Problem::new(StatusCode::BAD_REQUEST, "signature-missing", "Signature missing", detail)
}

impl From<SignatureError> for Problem {
    fn from(error: SignatureError) -> Self {
        tracing::warn!(%error, "webhook refused");
        let (slug, title) = match error {
            SignatureError::Malformed => ("signature-malformed", "Malformed signature"),
            SignatureError::Mismatch => ("signature-mismatch", "Signature does not fit"),
            SignatureError::Stale { .. } => ("signature-stale", "Signature too old or too new"),
        };
        Self::new(StatusCode::BAD_REQUEST, slug, title, error.to_string())
    }
}

impl From<hyperswitch::signature::SignatureError> for Problem {
    fn from(error: hyperswitch::signature::SignatureError) -> Self {
        tracing::warn!(%error, "webhook refused");
        let (slug, title) = match error {
            hyperswitch::signature::SignatureError::Malformed => ("signature-malformed", "Malformed signature"),
            hyperswitch::signature::SignatureError::Mismatch => ("signature-mismatch", "Signature does not fit"),
        };
        Self::new(StatusCode::BAD_REQUEST, slug, title, error.to_string())
    }
}

impl From<MalformedEvent> for Problem {
    fn from(error: MalformedEvent) -> Self {
        // The field alone: the rest quotes the body.
        tracing::warn!(field = error.field.as_deref(), "webhook refused: signed, but malformed");
        let detail = error.to_string();
        Self::malformed(detail).at(error.field)
    }
}
