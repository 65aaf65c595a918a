//! Receives payment providers' webhooks: verify, parse, hand to the ledger, answer. 2xx means that the event is committed;
//! after any other answer the provider sends it again.

pub mod hyperswitch;
mod reading;
pub mod signature;
pub mod stripe;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::routing::{any, post};
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::BODY_MAX_BYTES;
use super::problem::{Kind, Problem};
use super::sampled::Sampled;
use crate::config::SecretList;
use crate::ledger::{FieldProblem, Ledger, Receipt, WebhookEvent, now};

pub use self::reading::MalformedEvent;
use self::signature::SignatureError;

/// What the routes need.
#[derive(Clone)]
pub struct IngressState {
    /// Stores verified events.
    pub ledger: Ledger,
    /// The signing secrets of Stripe's endpoints; without it, `POST /webhooks/stripe` answers 404.
    pub stripe_webhook_secret: Option<SecretList>,
    /// The mode of Stripe's API key; `None`: not known, and not checked.
    pub stripe_livemode: Option<bool>,
    /// Hyperswitch's payment response hash key; without it, `POST /webhooks/hyperswitch` answers 404.
    pub hyperswitch_webhook_secret: Option<SecretList>,
}

#[derive(Clone)]
pub(crate) struct Endpoint {
    ledger: Ledger,
    secrets: SecretList,
    /// The mode that events must be of.
    livemode: Option<bool>,
    /// Refused signatures: anyone can cause them.
    refused: Arc<Sampled>,
}

/// How a provider signs and writes its events.
struct Provider {
    name: &'static str,
    header: &'static str,
    verify: fn(&str, &[u8], &SecretList) -> Result<(), SignatureError>,
    parse: fn(&[u8], Option<bool>) -> Result<WebhookEvent, MalformedEvent>,
}

const STRIPE: Provider = Provider {
    name: "stripe",
    header: "Stripe-Signature",
    verify: |header, body, secrets| signature::stripe(header, body, secrets, now()),
    parse: stripe::parse,
};
const HYPERSWITCH: Provider = Provider {
    name: "hyperswitch",
    header: "x-webhook-signature-512",
    verify: signature::hyperswitch,
    parse: |body, _| hyperswitch::parse(body),
};

/// `POST /webhooks/stripe` and `POST /webhooks/hyperswitch`.
pub fn routes(state: IngressState) -> Router {
    let IngressState { ledger, stripe_webhook_secret, stripe_livemode: livemode, hyperswitch_webhook_secret } = state;
    let endpoint = |secrets| Endpoint { ledger: ledger.clone(), secrets, livemode, refused: Arc::default() };
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
    Problem::new(Kind::SwitchedOff, format!("{provider}'s webhooks are off; set {setting} to turn them on"))
}

/// Stripe's events
///
/// Signed, without a token. 2xx means that the event is committed; after any other answer Stripe sends it again.
#[utoipa::path(
    post,
    path = "/webhooks/stripe",
    tag = "webhooks",
    operation_id = "receiveStripe",
    params(("Stripe-Signature" = String, Header, description = "`t=…,v1=…`, as Stripe signs it.")),
    request_body(content = serde_json::Value, description = "One of Stripe's events."),
    responses((status = 200, description = "Committed, a duplicate, or irrelevant.", body = Received)),
)]
pub(crate) async fn receive_stripe(
    State(endpoint): State<Endpoint>,
    request: Request,
) -> Result<Json<Received>, Problem> {
    receive(&endpoint, &STRIPE, request).await
}

/// Hyperswitch's events
///
/// Signed, without a token. 2xx means that the event is committed; after any other answer Hyperswitch sends it again.
#[utoipa::path(
    post,
    path = "/webhooks/hyperswitch",
    tag = "webhooks",
    operation_id = "receiveHyperswitch",
    params(("x-webhook-signature-512" = String, Header, description = "HMAC-SHA512 of the body, in hex.")),
    request_body(content = serde_json::Value, description = "One of Hyperswitch's events."),
    responses((status = 200, description = "Committed, a duplicate, or irrelevant.", body = Received)),
)]
pub(crate) async fn receive_hyperswitch(
    State(endpoint): State<Endpoint>,
    request: Request,
) -> Result<Json<Received>, Problem> {
    receive(&endpoint, &HYPERSWITCH, request).await
}

async fn receive(endpoint: &Endpoint, provider: &Provider, request: Request) -> Result<Json<Received>, Problem> {
    let received = take_in(endpoint, provider, request).await;
    let outcome = match &received {
        Ok(Json(received)) => (&received.outcome).into(),
        Err(problem) => match problem.kind() {
            Kind::SignatureMissing | Kind::SignatureMalformed | Kind::SignatureMismatch | Kind::SignatureStale => {
                "refused_signature"
            }
            kind if kind.row().status >= 500 => "not_committed",
            _ => "malformed",
        },
    };
    metrics::counter!("clawback_webhooks_total", "source" => provider.name, "outcome" => outcome).increment(1);
    received
}

async fn take_in(endpoint: &Endpoint, provider: &Provider, request: Request) -> Result<Json<Received>, Problem> {
    if let Some(count) = endpoint.refused.overdue(Instant::now()) {
        tracing::warn!(header = provider.header, count, "more webhooks were refused: not signed by their provider");
    }
    // Before the body: a caller without a signature may not make the server read 1 MiB.
    let Some(header) = request.headers().get(provider.header).cloned() else {
        let detail = format!("the {} header is required", provider.header);
        return Err(endpoint.refuse(provider, Kind::SignatureMissing, detail));
    };
    let body = Bytes::from_request(request, &()).await?;
    // No provider's signature has other characters than ASCII.
    if let Err(error) = (provider.verify)(header.to_str().unwrap_or_default(), &body, &endpoint.secrets) {
        let kind = match error {
            SignatureError::Malformed(_) => Kind::SignatureMalformed,
            SignatureError::Mismatch => Kind::SignatureMismatch,
            SignatureError::Stale { .. } => Kind::SignatureStale,
        };
        return Err(endpoint.refuse(provider, kind, error.to_string()));
    }
    let event = (provider.parse)(&body, endpoint.livemode)?;
    let outcome = endpoint.ledger.receive(event).await?;
    Ok(Json(Received { received: true, outcome }))
}

impl Endpoint {
    fn refuse(&self, provider: &Provider, kind: Kind, why: String) -> Problem {
        self.ledger.refuse_webhook();
        if let Some(more) = self.refused.occurred(Instant::now()) {
            tracing::warn!(header = provider.header, why, more, "webhook refused: not signed by its provider");
        }
        Problem::new(kind, why)
    }
}

/// The response to the provider. Operators read it in the provider's dashboard.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"received": true, "outcome": "accepted", "reversals": 2}))]
pub(crate) struct Received {
    /// Always true.
    received: bool,
    #[serde(flatten)]
    outcome: Receipt,
}

impl From<MalformedEvent> for Problem {
    fn from(error: MalformedEvent) -> Self {
        // The field alone: the rest quotes the body.
        tracing::warn!(field = error.field.as_deref(), "webhook refused: signed, but malformed");
        let problem = Self::malformed(error.to_string());
        match error.field {
            Some(field) => problem.at(FieldProblem { field, problem: error.problem }),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use std::time::Duration;

    use axum::body::Body;

    use super::*;
    use crate::http::sampled::captured_log;
    use crate::ledger::{ClaimPolicy, LedgerOptions};

    #[tokio::test]
    async fn of_many_forged_signatures_the_first_is_logged() {
        let second = Duration::from_secs(1);
        let options = LedgerOptions {
            reversal_grace: second,
            creation_grace: second,
            max_connections: 1,
            claims: ClaimPolicy::default(),
            notifies: false,
        };
        let ledger = Ledger::connect("sqlite::memory:", options).await.unwrap();
        let endpoint = Endpoint { ledger, secrets: "whsec".into(), livemode: None, refused: Arc::default() };
        let (lines, _captured) = captured_log();
        for (header, value) in
            [(STRIPE.header, "t=1,v1=00"), (STRIPE.header, "t=1,v1=00"), ("x-other", ""), (STRIPE.header, "")]
        {
            let request = Request::builder().header(header, value).body(Body::from("{}")).unwrap();
            assert!(receive(&endpoint, &STRIPE, request).await.is_err());
        }
        let text = lines.text();
        assert_eq!(text.matches("webhook refused").count(), 1, "{text}");
        assert_eq!(endpoint.refused.ended(Instant::now()).map(|series| series.total), Some(4));
    }
}
