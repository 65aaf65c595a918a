//! An event as an endpoint gets it: body and signature.

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Endpoint, Event, sign};
use crate::operations::expand;
use crate::state::State;

/// A signed event, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// `evt_…`
    pub event: String,
    /// As in `refund.created`, or `v1.refund.created` for a thin event.
    #[serde(rename = "type")]
    pub kind: String,
    /// What to send, byte for byte.
    pub body: String,
    /// The `Stripe-Signature` header.
    pub signature: String,
}

/// Every event so far that the endpoint is told of, oldest first.
pub(crate) fn render_all(state: &State, endpoint: &Endpoint) -> Vec<Webhook> {
    let told = state.events.all().iter().filter(|event| endpoint.takes(event));
    told.map(|event| render(state, endpoint, event)).collect()
}

/// Signed with the real time, which receivers compare with their own, whatever the simulator's clock says.
pub(crate) fn render(state: &State, endpoint: &Endpoint, event: &Event) -> Webhook {
    let body = if endpoint.thin { thin(endpoint, event) } else { snapshot(state, endpoint, event) };
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (event, kind, body) = (text("id"), text("type"), format!("{body:#}\n"));
    let signature = sign(&endpoint.secret, Utc::now().timestamp(), &body);
    Webhook { event, kind, body, signature }
}

fn account<'a>(endpoint: &'a Endpoint, event: &'a Event) -> Option<&'a String> {
    endpoint.account.as_ref().or(event.account.as_ref())
}

fn snapshot(state: &State, endpoint: &Endpoint, event: &Event) -> Value {
    let mut object = event.object.clone();
    if let Some(fields) = object.as_object_mut() {
        if !endpoint.lists_refunds() {
            fields.remove("refunds");
        }
        if let Some(livemode) = fields.get_mut("livemode") {
            *livemode = endpoint.livemode.into();
        }
    }
    if endpoint.expanded {
        expand::everything(state, &mut object);
    }
    let mut body = json!({
        "id": event.id,
        "object": "event",
        "api_version": endpoint.api_version,
        "created": event.created.timestamp(),
        "data": {"object": object},
        "livemode": endpoint.livemode,
        "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null},
        "type": event.kind,
    });
    if let Some(account) = account(endpoint, event) {
        body["account"] = account.as_str().into();
    }
    body
}

fn thin(endpoint: &Endpoint, event: &Event) -> Value {
    let text = |name: &str| event.object[name].as_str().unwrap_or_default();
    let (id, object) = (text("id"), text("object"));
    json!({
        "id": event.thin_id,
        "object": "v2.core.event",
        "context": account(endpoint, event),
        "created": event.created.to_rfc3339_opts(SecondsFormat::Millis, true),
        "livemode": endpoint.livemode,
        "related_object": {"id": id, "type": object, "url": format!("/v1/{object}s/{id}")},
        "snapshot_event": event.id,
        "type": format!("v1.{}", event.kind),
    })
}
