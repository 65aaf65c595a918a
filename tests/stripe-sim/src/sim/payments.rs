//! Payments, refunds, disputes and webhooks, as tests make them. Each panics with what is wrong when it can't be done.

use crate::control::{self, NewDispute, NewPayment, NewRefund, PaymentTransfer};
use crate::events::{self, Delivery, Endpoint, Event, Webhook};
use crate::ledger::{Charge, Dispute, DisputeStatus, Refund, RefundStatus};
use crate::sim::Sim;
use crate::state::State;

impl Sim {
    /// A buyer pays.
    ///
    /// # Panics
    /// When a field is wrong, or an id is taken.
    pub fn pay(&self, payment: NewPayment) -> Charge {
        self.done(|state| {
            let id = control::pay(state, payment)?;
            found(state.ledger.charges.get(&id))
        })
    }

    /// The platform makes another transfer of a payment, in the charge's group.
    ///
    /// # Panics
    /// When there is no such charge, or the transfer's id is taken.
    pub fn transfer_of(&self, charge: &str, transfer: PaymentTransfer) {
        self.done(|state| control::transfer_of(state, charge, transfer));
    }

    /// The platform captures `amount` of a charge, or all that is left, and releases the rest.
    ///
    /// # Panics
    /// When there is no such charge, or less is left.
    pub fn capture(&self, charge: &str, amount: Option<i64>) {
        self.done(|state| control::capture(state, charge, amount, true));
    }

    /// As [`Sim::capture`], but the rest may be captured later.
    ///
    /// # Panics
    /// When there is no such charge, less is left, or it is a destination charge.
    pub fn capture_some(&self, charge: &str, amount: i64) {
        self.done(|state| control::capture(state, charge, Some(amount), false));
    }

    /// The platform gives up an authorization, which Stripe shows as a refund.
    ///
    /// # Panics
    /// When there is no such charge, or it is captured.
    pub fn void(&self, charge: &str) {
        self.done(|state| control::void(state, charge));
    }

    /// The buyer gets money back.
    ///
    /// # Panics
    /// When a field is wrong, or more than what is captured would be refunded.
    pub fn refund(&self, refund: NewRefund) -> Refund {
        self.done(|state| {
            let id = control::refund(state, refund)?;
            found(state.ledger.refunds.get(&id))
        })
    }

    /// A refund moves on: a pending one to its end, a succeeded one to `failed`.
    ///
    /// # Panics
    /// When there is no such refund, or it can't move there.
    pub fn move_refund(&self, refund: &str, status: RefundStatus) {
        self.done(|state| control::move_refund(state, refund, status, None));
    }

    /// The bank's reference number for a refund becomes known, of which Stripe tells by `refund.updated`.
    ///
    /// # Panics
    /// When there is no such refund.
    pub fn set_reference(&self, refund: &str, reference: &str) {
        self.done(|state| control::refer(state, refund, reference));
    }

    /// The buyer disputes a charge, or a bank asks about it.
    ///
    /// # Panics
    /// When a field is wrong.
    pub fn dispute(&self, dispute: NewDispute) -> Dispute {
        self.done(|state| {
            let id = control::open_dispute(state, dispute)?;
            found(state.ledger.disputes.get(&id))
        })
    }

    /// A dispute moves on, with the money and the events that belong to it.
    ///
    /// # Panics
    /// When there is no such dispute, or it can't move there.
    pub fn move_dispute(&self, dispute: &str, status: DisputeStatus) {
        self.done(|state| control::move_dispute(state, dispute, status));
    }

    /// Stripe gives that much of what it withdrew for a dispute back, whatever becomes of it.
    ///
    /// # Panics
    /// When there is no such dispute, or less is withdrawn.
    pub fn reinstate(&self, dispute: &str, amount: i64) {
        self.done(|state| control::reinstate(state, dispute, amount));
    }

    /// Every event so far, oldest first. Requests to the API make events only while there is an endpoint.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.read(|state| state.events.all().to_vec())
    }

    /// Lets Stripe tell of a charge, refund, dispute or transfer as it is now, as in `refund.updated`.
    ///
    /// # Panics
    /// When there is no such object.
    pub fn add_event(&self, kind: &str, object: &str) -> Event {
        self.done(|state| events::happen(state, kind, object))
    }

    /// Every event so far that Stripe tells such an endpoint of, signed now and not sent. It need not be added.
    #[must_use]
    pub fn webhooks(&self, endpoint: &Endpoint) -> Vec<Webhook> {
        self.shared.read(|state| events::render_all(state, endpoint))
    }

    /// An event as such an endpoint gets it, signed now and not sent, also one that Stripe would not tell it of.
    #[must_use]
    pub fn webhook(&self, endpoint: &Endpoint, event: &Event) -> Webhook {
        self.shared.read(|state| events::render(state, endpoint, event))
    }

    /// From now on the endpoint is told of events, at each [`Sim::deliver`]; returns its id, `we_…`.
    pub fn add_endpoint(&self, endpoint: Endpoint) -> String {
        self.shared.change(|state| {
            let now = state.clock.now();
            state.events.register(endpoint, now)
        })
    }

    /// Sends the endpoint what it was not told yet. What is not answered with a 2xx is sent again the next time.
    ///
    /// # Panics
    /// When there is no such endpoint.
    pub async fn deliver(&self, endpoint: &str) -> Vec<Delivery> {
        settled(events::deliver(&self.shared, endpoint).await)
    }

    fn done<T>(&self, change: impl FnOnce(&mut State) -> Result<T, String>) -> T {
        settled(self.shared.change(change))
    }
}

fn found<T: Clone>(object: Option<&T>) -> Result<T, String> {
    object.cloned().ok_or_else(|| "it is not there".to_owned())
}

#[expect(clippy::panic, reason = "for tests, which can't go on without it")]
fn settled<T>(result: Result<T, String>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
