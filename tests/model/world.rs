//! The world of the model: the ledger, the jobs, the workers, the requests on their way, Stripe, the clock, and what can happen to them.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use stateright::{Model, Property};
use uuid::Uuid;

use super::bounds::{Bounds, Broken, Fault, start};
use super::properties;
use super::stripe::{Answer, Request, Stripe, Trouble};
use super::worker::Worker;
use crate::ledger::{CallState, ReversalStatus, Rows};

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
    pub(super) unreported: Vec<bool>,
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

impl World {
    /// Whether a worker that takes the call's job finds something to do, or nothing left to do.
    pub(super) fn is_due(&self, id: Uuid) -> bool {
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
