//! Events: what happened to objects, in Stripe's words, and the endpoints that are told of it.

mod deliver;
mod endpoint;
mod happen;
mod render;
mod sign;

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

pub use self::deliver::Delivery;
pub(crate) use self::deliver::deliver;
pub use self::endpoint::Endpoint;
pub(crate) use self::endpoint::Registered;
pub(crate) use self::happen::{charged, disputed, happen, refunded, reversed, transferred};
pub use self::render::Webhook;
pub(crate) use self::render::{render, render_all};
pub use self::sign::sign;

/// Something that happened to an object.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// `evt_…`
    pub id: String,
    /// The id of the same event as a thin one, `evt_…`.
    pub thin_id: String,
    /// As in `refund.created`.
    #[serde(rename = "type")]
    pub kind: String,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// The connected account in which it happened; none for the platform's.
    pub account: Option<String>,
    /// The object as it was then; a charge with the list of its refunds.
    pub object: Value,
    /// Whether it is about a card payment, whose refunds are told of otherwise before 2024-10-28.
    pub is_card: bool,
}

/// Every event, and who is still to be told.
#[derive(Debug, Default)]
pub(crate) struct Events {
    all: Vec<Event>,
    endpoints: IndexMap<String, Registered>,
}

impl Events {
    /// Forgets the events; keeps the endpoints.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.endpoints.values_mut().for_each(|endpoint| endpoint.pending.clear());
    }

    pub(crate) fn all(&self) -> &[Event] {
        &self.all
    }

    /// Oldest first.
    pub(crate) fn endpoints(&self) -> impl DoubleEndedIterator<Item = &Registered> {
        self.endpoints.values()
    }

    /// From now on the endpoint is told of events; returns its id.
    pub(crate) fn register(&mut self, endpoint: Endpoint, created: DateTime<Utc>) -> String {
        let id = crate::operations::new_id("we_");
        let registered = Registered { id: id.clone(), endpoint, created, pending: VecDeque::new() };
        self.endpoints.insert(id.clone(), registered);
        id
    }

    fn add(&mut self, event: Event) {
        let takes = |registered: &&mut Registered| registered.endpoint.takes(&event);
        for registered in self.endpoints.values_mut().filter(takes) {
            registered.pending.push_back(self.all.len());
        }
        self.all.push(event);
    }
}
