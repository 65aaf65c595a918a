//! Where payment providers tell of refunds: verify, parse, hand to the ledger, answer.
//!
//! `app` merges [`routes`] into the server. An answer of 2xx means that the event is committed; with every other one the
//! provider sends it again. It knows neither the queue nor Stripe's API, and looks at no body before its signature.

pub mod signature;
pub mod stripe;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, post};
use axum::{Json, Router};
use chrono::Utc;
use secrecy::SecretString;
use serde::Serialize;

use crate::ledger::{Ledger, Receipt};
use crate::problem::Problem;

use self::signature::SignatureError;
use self::stripe::MalformedEvent;

/// The largest body that is read: Stripe's events are far below it.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct IngressState {
    /// Where verified events go.
    pub ledger: Ledger,
    /// The signing secret of Stripe's endpoint; without it, `POST /webhooks/stripe` answers 404.
    pub stripe_webhook_secret: Option<SecretString>,
}

#[derive(Clone)]
struct StripeEndpoint {
    ledger: Ledger,
    secret: SecretString,
}

/// `POST /webhooks/stripe`.
pub fn routes(state: IngressState) -> Router {
    let IngressState { ledger, stripe_webhook_secret } = state;
    let stripe = match stripe_webhook_secret {
        Some(secret) => post(receive_stripe).with_state(StripeEndpoint { ledger, secret }),
        None => any(stripe_is_off),
    };
    Router::new().route("/webhooks/stripe", stripe).layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn stripe_is_off() -> Problem {
    Problem::switched_off("webhooks of Stripe are not received here; set STRIPE_WEBHOOK_SECRET to turn them on")
}

async fn receive_stripe(
    State(endpoint): State<StripeEndpoint>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Received>, Problem> {
    let body = body?;
    let header = headers.get("stripe-signature").ok_or_else(unsigned)?;
    let header = header.to_str().map_err(|_| SignatureError::Malformed)?;
    signature::verify(header, &body, &endpoint.secret, Utc::now())?;
    let event = stripe::parse(&body)?;
    let receipt = endpoint.ledger.receive(event).await?;
    Ok(Json(Received::from(receipt)))
}

/// What the provider is told. Programs of operators read it too, in the provider's dashboard.
#[derive(Serialize)]
struct Received {
    received: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    Accepted { reversals: usize },
    Unmatched,
    Duplicate,
    Ignored { reason: String },
}

impl From<Receipt> for Received {
    fn from(receipt: Receipt) -> Self {
        let outcome = match receipt {
            Receipt::Accepted { reversals } => Outcome::Accepted { reversals },
            Receipt::Unmatched => Outcome::Unmatched,
            Receipt::Duplicate => Outcome::Duplicate,
            Receipt::Ignored { reason } => Outcome::Ignored { reason },
        };
        Self { received: true, outcome }
    }
}

fn unsigned() -> Problem {
    tracing::warn!("webhook refused: no Stripe-Signature header");
    let detail = "there is no Stripe-Signature header; only Stripe's signed events are taken";
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

impl From<MalformedEvent> for Problem {
    fn from(error: MalformedEvent) -> Self {
        // The field alone: the rest quotes the body.
        tracing::warn!(field = error.field.as_deref(), "webhook refused: signed, but malformed");
        let detail = error.to_string();
        Self::malformed(detail).at(error.field)
    }
}
