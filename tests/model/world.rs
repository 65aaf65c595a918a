//! The world of the model: the ledger, the jobs, the workers, the requests on their way, Stripe, the clock, and what can go wrong.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use stateright::{Model, Property};
use uuid::Uuid;

use super::properties;
use super::stripe::{Answer, Request, Stripe, Trouble};
use super::worker::Worker;
use crate::ledger::{CallState, RefundEvent, RefundProgress, ReversalStatus, Rows};

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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) now: DateTime<Utc>,
    minutes: u8,
    days: u8,
    pub(super) faults: u8,
    replays: u8,
    pub(super) rows: Rows,
    /// The ledger before each of its last commits, while it may still lose those.
    before: Vec<Rows>,
    /// It has lost some.
    pub(super) lost: bool,
    pub(super) ids: u8,
    /// The events that the provider has had no answer to.
    unreported: Vec<bool>,
    /// Jobs at the broker, in no order.
    pub(super) queue: BTreeMap<Uuid, u8>,
    pub(super) workers: Vec<Worker>,
    /// On their way to Stripe.
    pub(super) requests: Vec<Sent>,
    pub(super) stripe: Stripe,
    /// Stripe executed something that the ledger had called off.
    pub(super) executed_though_called_off: bool,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sent {
    pub(super) call: Uuid,
    /// The worker that waits for the answer, if one does.
    pub(super) by: Option<usize>,
    pub(super) request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Report(usize),
    ReportAgain(usize),
    Publish(Uuid),
    LoseOutbox,
    Duplicate(Uuid),
    LoseJob(Uuid),
    Sweep(Uuid),
    Take(usize, Uuid),
    Step(usize),
    Crash(usize),
    Arrive(usize, Option<Trouble>),
    LoseRequest(usize),
    LoseAnswer(usize),
    TimeOut(usize),
    LoseCommits,
    Replay(Uuid),
    PassMinute,
    PassDay { keys_are_forgotten: bool },
}

impl Bounds {
    fn event(&self, index: usize) -> RefundEvent {
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
        let due = |call: &&crate::ledger::Call| call.next_attempt_at.is_none_or(|at| at <= world.now);
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

impl World {
    /// Whether a worker that takes the call's job finds something to do, or nothing left to do.
    fn is_due(&self, id: Uuid) -> bool {
        let call = self.rows.calls.iter().find(|call| call.id == id);
        call.is_none_or(|call| call.state != CallState::Open || call.next_attempt_at.is_none_or(|at| at <= self.now))
    }

    fn has_a_job(&self, id: Uuid) -> bool {
        self.queue.contains_key(&id)
            || self.rows.outbox.contains(&id)
            || self.workers.iter().any(|worker| worker.task().is_some_and(|task| task.call.id == id))
    }

    pub(super) fn enqueue(&mut self, id: Uuid) {
        *self.queue.entry(id).or_default() += 1;
    }

    fn dequeue(&mut self, id: Uuid) {
        let left = self.queue.get(&id).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            self.queue.remove(&id)
        } else {
            self.queue.insert(id, left)
        };
    }

    /// A change of the ledger that commits. What it was before may come back.
    pub(super) fn commit<T, E>(
        &mut self,
        bounds: &Bounds,
        change: impl FnOnce(&mut Rows, &mut u8, DateTime<Utc>) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.rows.clone();
        let answer = change(&mut self.rows, &mut self.ids, self.now)?;
        if !self.lost && bounds.kinds.contains(&Fault::LostCommits) && self.faults < bounds.faults {
            self.before.push(before);
            let too_many = self.before.len().saturating_sub(bounds.lost_commits);
            self.before.drain(..too_many);
        }
        Ok(answer)
    }

    fn arrive(&mut self, index: usize, trouble: Option<Trouble>) -> (Sent, Answer) {
        let sent = self.requests.remove(index);
        let is_new = !self.stripe.knows(&sent.request.key);
        let row = self.rows.reversals.iter().find(|row| row.id == sent.call);
        let called_off = row.is_some_and(|row| row.status == ReversalStatus::CalledOff);
        self.executed_though_called_off |= is_new && called_off && !self.lost;
        let answer = self.stripe.execute(sent.request.clone(), trouble, self.now);
        (sent, answer)
    }

    /// What `action` does here, for people.
    pub(super) fn tell(&self, action: &Action) -> String {
        let call = |id: &Uuid| format!("call {}", id.as_u128() % 0x100);
        match action {
            Action::Step(worker) => format!("worker {worker} {}", self.workers[*worker].does()),
            Action::Take(worker, id) => format!("worker {worker} takes the job of {}", call(id)),
            Action::Crash(worker) => format!("worker {worker} dies"),
            Action::TimeOut(worker) => format!("worker {worker} waits no longer, and its request is still on its way"),
            Action::Arrive(index, trouble) => {
                let key = &self.requests[*index].request.key;
                let with = trouble.map(|trouble| format!(" ({trouble:?})")).unwrap_or_default();
                format!("Stripe executes the request under the key …{}{with}", &key[key.len() - 6..])
            }
            Action::LoseAnswer(index) => {
                let key = &self.requests[*index].request.key;
                format!("Stripe executes the request under the key …{}, and its answer is lost", &key[key.len() - 6..])
            }
            Action::Publish(id) => format!("the job of {} is published", call(id)),
            Action::Duplicate(id) => format!("the broker has the job of {} twice", call(id)),
            Action::LoseJob(id) => format!("the broker loses the job of {}", call(id)),
            Action::Sweep(id) => format!("the sweeper makes a new job of {}", call(id)),
            Action::Replay(id) => format!("an operator replays {}", call(id)),
            Action::Report(event) => format!("the provider reports event {event}"),
            Action::LoseRequest(_) => "a request is lost".to_owned(),
            Action::ReportAgain(event) => format!("the provider reports event {event} again"),
            Action::LoseOutbox => "the process dies before it has published".to_owned(),
            Action::LoseCommits => "the ledger loses its last commits".to_owned(),
            Action::PassMinute => "a minute passes".to_owned(),
            Action::PassDay { keys_are_forgotten: true } => "a day passes, and Stripe forgets its keys".to_owned(),
            Action::PassDay { .. } => "a day passes".to_owned(),
        }
    }

    fn pass(&mut self, time: TimeDelta) {
        self.now += time;
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let events = self.refunds.len() + usize::from(self.last_refund_fails);
        vec![World {
            now: start(),
            minutes: 0,
            days: 0,
            faults: 0,
            replays: 0,
            rows: Rows::registered("pi_1", self.transfers.iter().sum(), self.transfers, start()),
            before: Vec::new(),
            lost: false,
            ids: 0,
            unreported: vec![true; events],
            queue: BTreeMap::new(),
            workers: vec![Worker::Idle; self.workers],
            requests: Vec::new(),
            stripe: Stripe::with_transfers(self.transfers),
            executed_though_called_off: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let may = |fault: Fault| world.faults < self.faults && self.kinds.contains(&fault);
        for (event, unreported) in world.unreported.iter().enumerate() {
            if *unreported {
                actions.push(Action::Report(event));
            } else if may(Fault::DuplicateEvent) {
                actions.push(Action::ReportAgain(event));
            }
        }
        actions.extend(world.rows.outbox.iter().map(|call| Action::Publish(*call)));
        if may(Fault::LostOutbox) && !world.rows.outbox.is_empty() {
            actions.push(Action::LoseOutbox);
        }
        for (&call, _) in world.queue.iter() {
            if let Some(worker) = world.workers.iter().position(|worker| *worker == Worker::Idle)
                && world.is_due(call)
            {
                actions.push(Action::Take(worker, call));
            }
            if may(Fault::DuplicateJob) {
                actions.push(Action::Duplicate(call));
            }
            if may(Fault::LostJob) {
                actions.push(Action::LoseJob(call));
            }
        }
        for call in world.rows.calls.iter().filter(|call| call.state == CallState::Open) {
            let sweeps = self.broken != Some(Broken::OutboxAfterCommit);
            if sweeps && world.is_due(call.id) && !world.has_a_job(call.id) {
                actions.push(Action::Sweep(call.id));
            }
        }
        for (index, worker) in world.workers.iter().enumerate().filter(|(_, worker)| **worker != Worker::Idle) {
            if worker.has_a_step() {
                actions.push(Action::Step(index));
            } else if may(Fault::TimeOut) {
                actions.push(Action::TimeOut(index));
            }
            if may(Fault::Crash) {
                actions.push(Action::Crash(index));
            }
        }
        for (index, Sent { request, .. }) in world.requests.iter().enumerate() {
            actions.push(Action::Arrive(index, None));
            for trouble in [Trouble::NoBalance, Trouble::Fails, Trouble::FailsAfterAll] {
                if may(Fault::Trouble(trouble)) && !world.stripe.knows(&request.key) {
                    actions.push(Action::Arrive(index, Some(trouble)));
                }
            }
            if may(Fault::LostRequest) {
                actions.push(Action::LoseRequest(index));
            }
            if may(Fault::LostAnswer) {
                actions.push(Action::LoseAnswer(index));
            }
        }
        if may(Fault::LostCommits) && !world.before.is_empty() {
            actions.push(Action::LoseCommits);
        }
        if world.replays < self.replays {
            let failed = world.rows.reversals.iter().filter(|row| row.status == ReversalStatus::PermanentlyFailed);
            actions.extend(failed.map(|row| Action::Replay(row.id)));
        }
        // What is on its way gets there, or is lost, before any of this time is over.
        if world.requests.is_empty() {
            if world.minutes < self.minutes {
                actions.push(Action::PassMinute);
            }
            if world.days < self.days {
                actions.extend([true, false].map(|keys_are_forgotten| Action::PassDay { keys_are_forgotten }));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let is_fault = match action {
            Action::Report(event) | Action::ReportAgain(event) => {
                let refund = self.event(event);
                next.commit(self, |rows, ids, now| rows.receive(refund, ids, now)).ok()?;
                next.unreported[event] = false;
                matches!(action, Action::ReportAgain(_))
            }
            Action::Publish(call) => {
                next.rows.outbox.retain(|it| *it != call);
                next.enqueue(call);
                false
            }
            Action::LoseOutbox => {
                next.rows.outbox.clear();
                true
            }
            Action::Duplicate(call) => {
                next.enqueue(call);
                true
            }
            Action::LoseJob(call) => {
                next.dequeue(call);
                true
            }
            Action::Sweep(call) => {
                next.rows.outbox.push(call);
                next.rows.outbox.sort();
                false
            }
            Action::Take(worker, call) => {
                next.dequeue(call);
                next.begin(worker, call);
                false
            }
            Action::Step(worker) => {
                next.step(self, worker);
                false
            }
            Action::Crash(worker) => {
                let call = world.workers[worker].task()?.call.id;
                next.gives_up(worker);
                next.workers[worker] = Worker::Idle;
                next.enqueue(call);
                true
            }
            Action::Arrive(index, trouble) => {
                let (sent, answer) = next.arrive(index, trouble);
                next.answer(&sent, answer);
                trouble.is_some()
            }
            Action::LoseRequest(index) => {
                let sent = next.requests.remove(index);
                next.answer(&sent, Answer::NONE);
                true
            }
            Action::LoseAnswer(index) => {
                let (sent, _) = next.arrive(index, None);
                next.answer(&sent, Answer::NONE);
                true
            }
            Action::TimeOut(worker) => {
                next.gives_up(worker);
                let Worker::Asking(task) = world.workers[worker].clone() else { return None };
                next.workers[worker] = Worker::Answered(task, Answer::NONE);
                true
            }
            Action::LoseCommits => {
                next.rows = next.before.drain(..).next()?;
                next.lost = true;
                // Whatever the provider had reported is reported again: the runbook's first step.
                next.unreported.fill(true);
                true
            }
            Action::Replay(call) => {
                next.replays += 1;
                next.commit(self, |rows, ids, now| rows.replay(call, ids, now)).ok()?;
                false
            }
            Action::PassMinute => {
                next.minutes += 1;
                next.pass(TimeDelta::seconds(61));
                false
            }
            Action::PassDay { keys_are_forgotten } => {
                next.days += 1;
                next.pass(TimeDelta::hours(24));
                if keys_are_forgotten {
                    next.stripe.forget_old_keys(next.now);
                }
                false
            }
        };
        next.faults += u8::from(is_fault);
        if next.faults == self.faults {
            next.before.clear();
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
