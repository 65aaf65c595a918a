//! Where events are sent, and which of them.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Event;
use crate::API_VERSION;

/// From this API version on a charge does not list its refunds.
const WITHOUT_LIST: &str = "2022-11-15";
/// From this API version on every refund has events of its own, also that of a card payment.
const REFUND_EVENTS: &str = "2024-10-28";

/// A webhook endpoint: where it is, which events it gets, and in which shape.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `http://…`; deliveries speak no TLS.
    #[serde(default)]
    pub url: String,
    /// `whsec_…`
    pub secret: String,
    /// Decides which events come for a refund, and in which shape; [`API_VERSION`] by default.
    #[serde(default = "newest")]
    pub api_version: String,
    /// Types as in `refund.created`, or `*`, which is the default.
    #[serde(default = "everything")]
    pub enabled_events: Vec<String>,
    /// Whether it gets the events of connected accounts instead of the platform's.
    #[serde(default)]
    pub connect: bool,
    /// Whether it gets thin events.
    #[serde(default)]
    pub thin: bool,
    /// The connected account that every event is said to have happened in.
    #[serde(default)]
    pub account: Option<String>,
    /// Whether every event is said to have happened in live mode.
    #[serde(default)]
    pub livemode: bool,
    /// Whether objects are sent where their ids are expected.
    #[serde(default)]
    pub expanded: bool,
}

fn newest() -> String {
    API_VERSION.to_owned()
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Endpoint {
    /// Gets all events of the platform in the newest shape, in test mode.
    #[must_use]
    pub fn new(url: &str, secret: &str) -> Endpoint {
        Endpoint {
            url: url.to_owned(),
            secret: secret.to_owned(),
            api_version: newest(),
            enabled_events: everything(),
            connect: false,
            thin: false,
            account: None,
            livemode: false,
            expanded: false,
        }
    }

    /// The same with another API version.
    #[must_use]
    pub fn version(self, api_version: &str) -> Endpoint {
        Endpoint { api_version: api_version.to_owned(), ..self }
    }

    /// Whether a charge lists its refunds.
    pub(super) fn lists_refunds(&self) -> bool {
        self.api_version.as_str() < WITHOUT_LIST
    }

    /// Whether Stripe tells it of the event.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let is_enabled = self.enabled_events.iter().any(|enabled| enabled == "*" || *enabled == event.kind);
        let version = self.api_version.as_str();
        let has_refund_events = self.thin || version >= REFUND_EVENTS || (version >= WITHOUT_LIST && !event.is_card);
        is_enabled
            && self.connect == event.account.is_some()
            && (has_refund_events || !event.kind.starts_with("refund."))
    }
}

/// An endpoint with the events that it is still to be told of.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(super) id: String,
    pub(super) endpoint: Endpoint,
    pub(super) created: DateTime<Utc>,
    /// Positions among all events.
    pub(super) pending: VecDeque<usize>,
}

impl Registered {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A `webhook_endpoint`, whose secret is shown only when it is created.
    pub(crate) fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "object": "webhook_endpoint",
            "api_version": self.endpoint.api_version,
            "application": null,
            "created": self.created.timestamp(),
            "description": null,
            "enabled_events": self.endpoint.enabled_events,
            "livemode": self.endpoint.livemode,
            "metadata": {},
            "status": "enabled",
            "url": self.endpoint.url,
        })
    }
}
