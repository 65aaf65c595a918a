//! A seed's world as data: what buyers, banks, the marketplace and the operators do, each in this order. When it happens, and
//! what goes wrong meanwhile, is the world's.

use std::collections::{HashSet, VecDeque};

use chrono::{TimeDelta, Utc};
use clawback::ledger::{ClaimPolicy, DisputePolicy, NewPayment, NewTransfer, NewTransfers};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use stripe_sim::{Capture, DisputeStatus, Endpoint, NewDispute, NewRefund, PaymentTransfer, RefundStatus};

pub(super) struct Scenario {
    pub(super) policy: ClaimPolicy,
    /// As which endpoints the webhook is set up: one, or two side by side.
    pub(super) endpoints: Vec<Endpoint>,
    /// Whether the database loses its last commits now and then.
    pub(super) forgets: bool,
    /// What buyers have paid before anything else happens.
    pub(super) payments: Vec<Payment>,
    /// Each is in order; which goes on is random.
    pub(super) threads: Vec<VecDeque<Act>>,
    /// The refunds and disputes that an operator accepts when they are held.
    pub(super) accepted: HashSet<String>,
}

pub(super) struct Payment {
    pub(super) at_stripe: stripe_sim::NewPayment,
    /// What the marketplace says was captured; `None` if it registers nothing.
    pub(super) registered: Option<i64>,
    /// Of the same transfer group: then nobody can tell whose the transfers are.
    pub(super) in_the_way: Option<stripe_sim::NewPayment>,
}

/// What somebody does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Capture(String, i64),
    Void(String),
    Refund(NewRefund),
    MoveRefund(String, RefundStatus),
    /// The bank's reference becomes known.
    Refer(String),
    Dispute(NewDispute),
    MoveDispute(String, DisputeStatus),
    /// The marketplace makes another transfer of a charge.
    Transfer(String, PaymentTransfer),
    Register(NewPayment),
    /// The marketplace adds transfers to a payment that is registered.
    Add(String, NewTransfers),
    /// Stripe gives a part of what it withdrew for a dispute back.
    Reinstate(String, i64),
    /// A refund that is made through Hyperswitch succeeds, or fails.
    Tell(Told),
}

/// What Hyperswitch tells of a refund.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) payment_ref: String,
    pub(super) charge: String,
    pub(super) amount: i64,
    pub(super) succeeded: bool,
    /// The later of two states has the larger one.
    pub(super) minute: usize,
}

const OLD: u32 = 500 * 24 * 60 * 60;

pub(super) fn scenario(rng: &mut StdRng) -> Scenario {
    let policy = ClaimPolicy {
        refunds_since: Some(Utc::now() - TimeDelta::days(400)),
        reverse_on_pending: rng.random_bool(0.3),
        discovery: rng.random_bool(0.5),
        disputes: *[DisputePolicy::Off, DisputePolicy::Lost, DisputePolicy::Withdrawn].choose(rng).unwrap(),
    };
    let endpoints = (0..if rng.random_bool(0.2) { 2 } else { 1 }).map(|_| endpoint(rng)).collect();
    let forgets = rng.random_bool(0.3);
    let mut scenario =
        Scenario { policy, endpoints, forgets, payments: Vec::new(), threads: Vec::new(), accepted: HashSet::new() };
    for p in 0..rng.random_range(1..4) {
        let mut plan = Plan::draw(rng, p, policy.discovery);
        // What it took is not found again where nobody registers payments.
        plan.by_hyperswitch &= !policy.discovery && !forgets;
        plan.add_to(rng, &mut scenario);
    }
    scenario
}

fn endpoint(rng: &mut StdRng) -> Endpoint {
    let newest = Endpoint::new("", "whsec_of_the_seeds");
    match rng.random_range(0..6) {
        0 => newest.version("2023-10-16"), // refunds are not listed, and have no events of their own
        1 => newest.version("2020-08-27"),
        2 => Endpoint { thin: true, ..newest },
        3 => Endpoint { expanded: true, ..newest },
        _ => newest,
    }
}

/// One payment and its transfers.
struct Plan {
    p: usize,
    authorized: i64,
    captured: i64,
    capture: Capture,
    is_registered: bool,
    is_clear: bool,
    /// Its refunds are made through Hyperswitch.
    by_hyperswitch: bool,
    now: Vec<NewTransfer>,
    later: Vec<NewTransfer>,
    payment_ref: String,
}

impl Plan {
    fn draw(rng: &mut StdRng, p: usize, discovery: bool) -> Self {
        let is_registered = rng.random_bool(0.8);
        let has_transfers = is_registered || rng.random_bool(0.75);
        let transfer = |rng: &mut StdRng, t: usize| {
            let create = is_registered && rng.random_bool(0.4);
            let account = format!("acct_{p}_{t}");
            NewTransfer {
                // As a look-up would name the seller.
                seller_id: account.clone(),
                create,
                stripe_transfer_id: (!create).then(|| format!("tr_{p}_{t}")),
                destination: account,
                amount: rng.random_range(10..5_000),
                currency: "eur".into(),
                ..NewTransfer::default()
            }
        };
        let (count, late) = (rng.random_range(1..4), if rng.random_bool(0.3) { 1 } else { 0 });
        let mut now: Vec<_> = (0..count + late).map(|t| transfer(rng, t)).collect();
        let later = now.split_off(count);
        let now = if has_transfers { now } else { Vec::new() };
        let sum: i64 = now.iter().chain(&later).map(|transfer| transfer.amount).sum();
        let all = sum + rng.random_range(1..500);
        let more = rng.random_range(1..3_000);
        let (authorized, captured, capture) = match rng.random_range(0..20) {
            0..3 => (all + more, all, Capture::Part(all)),
            3 => (all + more, all, Capture::Later),
            4 => (all, 0, Capture::Later),
            _ => (all, all, Capture::All),
        };
        let payment_ref = if discovery || rng.random_bool(0.7) { format!("pi_{p}") } else { format!("ch_{p}") };
        let is_clear = is_registered || captured == 0 || rng.random_bool(0.8);
        let by_hyperswitch = is_registered && captured > 0 && rng.random_bool(0.4);
        Self { p, authorized, captured, capture, is_registered, is_clear, by_hyperswitch, now, later, payment_ref }
    }

    fn add_to(self, rng: &mut StdRng, scenario: &mut Scenario) {
        let market = self.marketplace(rng);
        let registered = market.iter().find_map(|act| match act {
            Act::Register(payment) => Some(payment.amount),
            _ => None,
        });
        let at_stripe = self.at_stripe();
        let other = stripe_sim::NewPayment {
            charge: Some(format!("ch_{}_other", self.p)),
            transfer_group: at_stripe.transfer_group.clone(),
            ..stripe_sim::NewPayment::new(1_000, "eur")
        };
        let in_the_way = (!self.is_clear).then_some(other);
        scenario.payments.push(Payment { at_stripe, registered, in_the_way });
        let mut chains = if self.by_hyperswitch { self.told_refunds(rng) } else { self.refunds(rng) };
        chains.extend(self.disputes(rng));
        let claims = chains.iter().flatten().filter_map(|act| match act {
            Act::Refund(refund) => refund.id.clone(),
            Act::Dispute(dispute) => dispute.id.clone(),
            _ => None,
        });
        scenario.accepted.extend(claims.filter(|_| rng.random_bool(0.4)));
        let mut life: VecDeque<Act> = match (self.capture, self.captured) {
            (Capture::Later, 0) => [Act::Void(self.charge())].into(),
            (Capture::Later, captured) => [Act::Capture(self.charge(), captured)].into(),
            _ => VecDeque::new(),
        };
        while !chains.is_empty() {
            let at = rng.random_range(0..chains.len());
            life.extend(chains[at].pop_front());
            chains.retain(|chain| !chain.is_empty());
        }
        scenario.threads.extend([life, market]);
    }

    fn charge(&self) -> String {
        format!("ch_{}", self.p)
    }

    fn at_stripe(&self) -> stripe_sim::NewPayment {
        stripe_sim::NewPayment {
            charge: Some(self.charge()),
            payment_intent: Some(format!("pi_{}", self.p)),
            // One names its groups as its payments: what Clawback creates is in them, too.
            transfer_group: Some(if self.p == 1 { "pi_1".to_owned() } else { format!("order_{}", self.p) }),
            transfers: self.now.iter().filter_map(existing).collect(),
            capture: self.capture,
            ..stripe_sim::NewPayment::new(self.authorized, "eur")
        }
    }

    fn marketplace(&self, rng: &mut StdRng) -> VecDeque<Act> {
        let mut acts = VecDeque::new();
        if self.is_registered {
            // Some say what was authorized, which is wrong where less was captured.
            let is_wrong = self.captured == 0 || rng.random_bool(0.3);
            acts.push_back(Act::Register(NewPayment {
                payment_ref: self.payment_ref.clone(),
                amount: if is_wrong { self.authorized } else { self.captured },
                currency: "eur".into(),
                transfers: self.now.clone(),
                allow_excess: false,
            }));
        }
        for transfer in &self.later {
            acts.extend(existing(transfer).map(|transfer| Act::Transfer(self.charge(), transfer)));
            if self.is_registered {
                let transfers = NewTransfers { transfers: vec![transfer.clone()], allow_excess: false };
                acts.push_back(Act::Add(self.payment_ref.clone(), transfers));
            }
        }
        acts
    }

    /// A few refunds, in part and in full. Some wait, some fail at any time, and some of these are made again.
    fn refunds(&self, rng: &mut StdRng) -> Vec<VecDeque<Act>> {
        let (mut left, mut chains) = (self.captured, Vec::new());
        for r in 0..rng.random_range(1..4) {
            if left == 0 {
                break;
            }
            let part = if rng.random_bool(0.4) { left } else { rng.random_range(1..=left) };
            left -= part;
            let id = format!("re_{}_{r}", self.p);
            let refund = NewRefund {
                id: Some(id.clone()),
                seconds_ago: if rng.random_bool(0.12) { OLD } else { 0 },
                ..NewRefund::part(&self.charge(), part)
            };
            let again = NewRefund { id: Some(format!("{id}_again")), seconds_ago: 0, ..refund.clone() };
            let mut chain = VecDeque::new();
            let waits_for = [None, None, None, None, None, None, Some("insufficient_funds"), Some("processing")];
            let pending_reason = waits_for.choose(rng).unwrap().map(str::to_owned);
            let mut status = if pending_reason.is_some() { RefundStatus::Pending } else { RefundStatus::Succeeded };
            chain.push_back(Act::Refund(NewRefund { status, pending_reason, ..refund }));
            if status == RefundStatus::Pending && rng.random_bool(0.8) {
                let ends =
                    [RefundStatus::Succeeded, RefundStatus::Succeeded, RefundStatus::Failed, RefundStatus::Canceled];
                status = *ends.choose(rng).unwrap();
                chain.push_back(Act::MoveRefund(id.clone(), status));
            }
            if rng.random_bool(0.1) {
                chain.push_back(Act::Refer(id.clone()));
            }
            if status == RefundStatus::Succeeded && rng.random_bool(0.3) {
                status = RefundStatus::Failed;
                chain.push_back(Act::MoveRefund(id, status));
            }
            if !status.stands() && rng.random_bool(0.5) {
                chain.push_back(Act::Refund(again));
            }
            chains.push(chain);
        }
        chains
    }

    /// A few refunds. Some fail after they had succeeded, and some of these succeed after all.
    fn told_refunds(&self, rng: &mut StdRng) -> Vec<VecDeque<Act>> {
        let (mut left, mut chains) = (self.captured, Vec::new());
        for r in 0..rng.random_range(1..4) {
            if left == 0 {
                break;
            }
            let amount = if rng.random_bool(0.3) { left } else { rng.random_range(1..=left) };
            left -= amount;
            let states = rng.random_range(1..4);
            let begins_well = rng.random_bool(0.8);
            let told = |minute: usize| {
                let (id, payment_ref) = (format!("ref_{}_{r}", self.p), self.payment_ref.clone());
                let succeeded = minute.is_multiple_of(2) == begins_well;
                Act::Tell(Told { id, payment_ref, charge: self.charge(), amount, succeeded, minute })
            };
            chains.push((0..states).map(told).collect());
        }
        chains
    }

    /// None, one or two disputes, of part or all of the payment, each as far as it gets.
    fn disputes(&self, rng: &mut StdRng) -> Vec<VecDeque<Act>> {
        use DisputeStatus::{
            ChargeRefunded, Lost, NeedsResponse, UnderReview, WarningClosed, WarningNeedsResponse, WarningUnderReview,
            Won,
        };
        let (mut left, mut chains) = (self.captured, Vec::new());
        let count = *[0, 0, 0, 0, 0, 1, 1, 1, 2].choose(rng).unwrap();
        for d in 0..count {
            if left == 0 {
                break;
            }
            let amount = if rng.random_bool(0.5) { left } else { rng.random_range(1..=left) };
            left -= amount;
            let id = format!("du_{}_{d}", self.p);
            let mut status = if rng.random_bool(0.3) { WarningNeedsResponse } else { NeedsResponse };
            let mut chain = VecDeque::from([Act::Dispute(NewDispute {
                id: Some(id.clone()),
                amount: Some(amount),
                status,
                seconds_ago: if rng.random_bool(0.12) { OLD } else { 0 },
                ..NewDispute::of(&self.charge())
            })]);
            while !status.is_final() && rng.random_bool(0.85) {
                let next: &[DisputeStatus] = match status {
                    WarningNeedsResponse => &[WarningUnderReview, NeedsResponse, WarningClosed],
                    WarningUnderReview => &[NeedsResponse, WarningClosed, ChargeRefunded],
                    NeedsResponse => &[UnderReview, Won, Lost, Lost],
                    _ => &[Won, Won, Lost, Lost, ChargeRefunded],
                };
                if matches!(status, NeedsResponse | UnderReview) && amount > 1 && rng.random_bool(0.1) {
                    // Once at most: it is not to be more than was withdrawn.
                    let was = chain.iter().any(|act| matches!(act, Act::Reinstate(..)));
                    chain.extend((!was).then(|| Act::Reinstate(id.clone(), amount / 2)));
                }
                status = *next.choose(rng).unwrap();
                chain.push_back(Act::MoveDispute(id.clone(), status));
            }
            chains.push(chain);
        }
        chains
    }
}

/// As it is at Stripe already, unless Clawback is to create it.
fn existing(transfer: &NewTransfer) -> Option<PaymentTransfer> {
    let NewTransfer { stripe_transfer_id, amount, destination, .. } = transfer.clone();
    let id = Some(stripe_transfer_id?);
    Some(PaymentTransfer { id, amount, currency: None, destination, from_charge: false })
}
