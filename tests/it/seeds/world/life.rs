//! What people do: buyers, banks and operators, and the marketplace; and what Stripe tells of it.

use chrono::Utc;
use clawback::http::webhooks::{hyperswitch, stripe::parse};
use clawback::ledger::{LedgerError, Note};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde_json::json;

use super::World;
use super::scenario::{Act, Scenario, Told};
use crate::support::hyperswitch_event;

impl Scenario {
    /// Whatever Stripe is asked about.
    pub(super) fn targets(&self) -> Vec<String> {
        let mut targets: Vec<String> = Vec::new();
        for payment in &self.payments {
            let stripe_sim::NewPayment { charge, payment_intent, transfers, .. } = &payment.at_stripe;
            targets.extend(transfers.iter().filter_map(|transfer| transfer.id.clone()).chain(charge.clone()));
            targets.extend(payment_intent.clone());
        }
        for act in self.threads.iter().flatten() {
            match act {
                Act::Refund(refund) => targets.extend(refund.id.clone()),
                Act::Dispute(dispute) => targets.extend(dispute.id.clone()),
                Act::Transfer(_, transfer) => targets.extend(transfer.id.clone()),
                Act::Register(payment) => targets.extend(created(&payment.transfers)),
                Act::Add(_, new) => targets.extend(created(&new.transfers)),
                _ => {}
            }
        }
        targets
    }
}

/// The accounts of transfers that Clawback creates.
fn created(new: &[clawback::ledger::NewTransfer]) -> impl Iterator<Item = String> {
    new.iter().filter(|new| new.create).map(|new| new.destination.clone())
}

impl World {
    pub(super) fn buyers_pay(&mut self) {
        for payment in &self.plan.payments {
            self.sim.pay(payment.at_stripe.clone());
            payment.in_the_way.iter().for_each(|other| drop(self.sim.pay(other.clone())));
        }
        self.hear();
    }

    /// Someone does the next thing.
    pub(super) async fn go_on_anywhere(&mut self) {
        let at = self.rng.random_range(0..self.plan.threads.len());
        let Some(act) = self.plan.threads[at].pop_front() else { return };
        let done = match act.clone() {
            Act::Register(mut payment) => {
                // In another life its transfers come in another order.
                payment.transfers.shuffle(&mut self.rng);
                self.ledger.register_payment(payment).await.map(drop)
            }
            Act::Add(payment_ref, transfers) => self.ledger.add_transfers(&payment_ref, transfers).await.map(drop),
            other => return self.happens(other),
        };
        match done {
            Ok(()) => {}
            // Found at Stripe before it was registered, and as far as Stripe shows it.
            Err(LedgerError::Conflict(_) | LedgerError::NotFound { .. }) if self.plan.policy.discovery => {}
            Err(error) => panic!("seed {}: {act:?}: {error}", self.seed),
        }
        if let Some(since) = &mut self.since_backup {
            since.acts.push((at, act));
        }
    }

    /// Something happens at Stripe.
    fn happens(&mut self, act: Act) {
        match act {
            Act::Capture(charge, amount) => self.sim.capture(&charge, Some(amount)),
            Act::Void(charge) => self.sim.void(&charge),
            Act::Refund(refund) => drop(self.sim.refund(refund)),
            Act::MoveRefund(id, status) => self.sim.move_refund(&id, status),
            Act::Refer(id) => self.sim.set_reference(&id, "74999999999999999999999"),
            Act::Dispute(dispute) => drop(self.sim.dispute(dispute)),
            Act::MoveDispute(id, status) => self.sim.move_dispute(&id, status),
            Act::Reinstate(id, amount) => self.sim.reinstate(&id, amount),
            Act::Tell(told) => self.hyperswitch_tells(told),
            Act::Transfer(charge, transfer) => self.sim.transfer_of(&charge, transfer),
            Act::Register(_) | Act::Add(..) => {}
        }
        self.hear();
    }

    fn hyperswitch_tells(&mut self, told: Told) {
        let event_id = format!("evt_{}_{}", told.id, told.minute);
        let mut event = hyperswitch_event(&event_id, &told.id, &told.payment_ref, told.amount);
        let status = if told.succeeded { "succeeded" } else { "failed" };
        event["event_type"] = json!(format!("refund_{status}"));
        let object = &mut event["content"]["object"];
        (object["status"], object["created_at"]) = (json!(status), json!(Utc::now().to_rfc3339()));
        object["updated_at"] = json!(format!("2026-11-23T10:{:02}:00.000Z", told.minute));
        self.events.push(hyperswitch::parse(event.to_string().as_bytes()).unwrap());
        self.told.insert(told.id.clone(), told);
    }

    /// Stripe's new events, as the endpoints get them.
    fn hear(&mut self) {
        let all = self.sim.events();
        for event in &all[self.heard..] {
            for endpoint in self.plan.endpoints.iter().filter(|endpoint| endpoint.takes(event)) {
                let body = self.sim.webhook(endpoint, event).body;
                self.events.push(parse(body.as_bytes(), Some(false)).unwrap());
            }
        }
        self.heard = all.len();
    }

    /// Stripe delivers one of its events, which with that probability it does not do again.
    pub(super) async fn deliver_an_event(&mut self, for_good: f64) {
        if self.events.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.events.len());
        self.ledger.receive(self.events[at].clone()).await.unwrap();
        if self.rng.random_bool(for_good) {
            let event = self.events.swap_remove(at);
            if let Some(since) = &mut self.since_backup {
                since.events.push(event);
            }
        }
    }

    /// What is held and is to be accepted, is.
    pub(super) async fn operators_accept(&mut self) {
        for id in &self.plan.accepted {
            match self.ledger.accept_claim(id, Note::new("operator", "not taken back before")).await {
                Ok(_) | Err(LedgerError::NotFound { .. } | LedgerError::Conflict(_)) => {}
                Err(error) => panic!("seed {}: {id} can't be accepted: {error}", self.seed),
            }
        }
    }
}
