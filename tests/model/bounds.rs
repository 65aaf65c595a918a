//! How much of the world is explored, what may go wrong in it, and how it goes on when nothing does.

use chrono::{DateTime, TimeDelta, Utc};

use super::stripe::Trouble;
use super::world::{Action, World};
use crate::ledger::{Call, CallState, RefundEvent, RefundProgress};

/// What may go wrong. Each time counts against [`Bounds::faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// A worker dies: its job comes again.
    Crash,
    /// A request never gets to Stripe.
    LostRequest,
    /// Stripe executes a request, and nobody hears of it.
    LostAnswer,
    /// A worker gives up waiting, and the request is still on its way.
    TimeOut,
    /// The broker has one job twice.
    DuplicateJob,
    /// The broker loses a job.
    LostJob,
    /// The provider reports again.
    DuplicateEvent,
    /// Stripe refuses or fails.
    Trouble(Trouble),
    /// The database loses its last commits, in a failover: as many as [`Bounds::lost_commits`].
    LostCommits,
    /// The process dies that has jobs to publish which are not in the database: only in a broken variant.
    LostOutbox,
}

/// What is left out of Clawback, to see the model fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Jobs are published after the commit instead of with it, and no sweeper looks for those that are lost.
    OutboxAfterCommit,
    /// A key that is burnt or old is left at once for a new one.
    NoLookBeforeNewKey,
    /// A report counts whatever version of the call it is about.
    NoVersionGuard,
    /// Keys and metadata are made of the row's id instead of the provider's.
    RandomIds,
    /// That Stripe is asked is committed after the request instead of before.
    MarkAfterCall,
}

/// How much of the world is explored.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// The transfers of one payment, in minor units. The payment is their sum.
    pub(super) transfers: &'static [i64],
    /// Refunds: each an amount of the payment, and what it asks of each transfer, written by hand.
    pub(super) refunds: &'static [(i64, &'static [i64])],
    /// Whether the last refund fails at its provider, at any moment.
    pub(super) last_refund_fails: bool,
    pub(super) workers: usize,
    /// How many things go wrong in one run.
    pub(super) faults: u8,
    pub(super) kinds: &'static [Fault],
    /// How often an operator replays what failed permanently.
    pub(super) replays: u8,
    /// How often some time passes: more than the longest delay of a job, and than the settling time.
    pub(super) minutes: u8,
    /// How often a day passes. Stripe then forgets its keys, or not yet.
    pub(super) days: u8,
    pub(super) max_retries: i32,
    pub(super) lost_commits: usize,
    pub(super) broken: Option<Broken>,
}

impl Bounds {
    pub(super) fn event(&self, index: usize) -> RefundEvent {
        let fails = index == self.refunds.len();
        let refund = if fails { index - 1 } else { index };
        let progress = if fails { RefundProgress::Failed("failed".to_owned()) } else { RefundProgress::Succeeded };
        RefundEvent {
            refund_ref: format!("re_{refund}"),
            account: String::new(),
            payment_ref: "pi_1".to_owned(),
            charge_ref: None,
            amount: self.refunds[refund].0,
            currency: "eur".to_owned(),
            created: Some(start()),
            progress,
            updated: None,
            charge: None,
            provider_reversal: None,
            shares: None,
        }
    }

    /// What goes on when nothing goes wrong any more: one thing after the other, and time passes only when nothing else is left.
    pub(super) fn calm(&self, world: &World) -> Option<Action> {
        let busy = (0..world.workers.len()).find(|&worker| world.workers[worker].has_a_step());
        let unreported = world.unreported.iter().position(|is| *is);
        let due = |call: &&Call| call.next_attempt_at.is_none_or(|at| at <= world.now);
        let open = || world.rows.calls.iter().filter(|call| call.state == CallState::Open);
        if let Some(worker) = busy {
            return Some(Action::Step(worker));
        } else if !world.requests.is_empty() {
            return Some(Action::Arrive(0, None));
        } else if let Some(event) = unreported {
            return Some(Action::Report(event));
        } else if let Some(&call) = world.rows.outbox.first() {
            return Some(Action::Publish(call));
        } else if let Some(&call) = world.queue.keys().find(|&&call| world.is_due(call)) {
            return Some(Action::Take(0, call));
        } else if self.broken != Some(Broken::OutboxAfterCommit)
            && let Some(call) = open().find(due)
        {
            return Some(Action::Sweep(call.id));
        }
        open().any(|call| call.next_attempt_at.is_some()).then_some(Action::PassMinute)
    }
}

pub(super) fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}
