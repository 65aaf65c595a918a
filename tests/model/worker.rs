//! What a worker does, step by step: between any two of them it may die, be suspended, or be overtaken. What it decides, the real
//! functions decide; what is written here is only their order, which is that of `src/worker/saga.rs`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::bounds::{Bounds, Broken};
use super::stripe::{Answer, Request, Reversal};
use super::world::{Sent, World};
use crate::ledger::{
    CallState, Failure, NextStep, Postponement, Remainder, Retries, ReversalTarget, Target, Task, TryOutcome,
};
use crate::stripe::ReverseTransfer;
use crate::worker::{
    AfterLook, AfterRefusal, Decision, Otherwise, Seen, Sight, after_look, after_refusal, command, decide, sight,
};

const SETTLING: Duration = Duration::from_secs(45);
const DELAY: TimeDelta = TimeDelta::seconds(60);
/// As in the saga: a request that is not written so soon after it was authorized is not made.
const AUTHORIZED_FOR: TimeDelta = TimeDelta::seconds(3);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Worker {
    Idle,
    /// Has read the call, and is about to look at Stripe's list.
    AboutToLook(Task),
    /// Has read the call, and is about to have the request authorized.
    AboutToMake(Task),
    /// Has read what Stripe has of it: the list as it was then.
    Looked(Task, Vec<Reversal>, Why),
    /// The request is authorized and not written yet.
    Authorized(Task, DateTime<Utc>),
    /// Waits for Stripe's answer.
    Asking(Task),
    /// Has Stripe's answer, and has not reported it.
    Answered(Task, Answer),
}

/// Why Stripe's list was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Why {
    /// The call's row asks for it.
    Look,
    /// Stripe has refused.
    Refused(Otherwise, Answer),
    /// The retries are used up.
    Exhausted(Answer),
}

impl Worker {
    pub(super) fn task(&self) -> Option<&Task> {
        match self {
            Self::Idle => None,
            Self::AboutToLook(task)
            | Self::AboutToMake(task)
            | Self::Looked(task, ..)
            | Self::Authorized(task, _)
            | Self::Asking(task)
            | Self::Answered(task, _) => Some(task),
        }
    }

    /// Its next step, for people.
    pub(super) fn does(&self) -> &'static str {
        match self {
            Self::Idle | Self::Asking(_) => "waits",
            Self::AboutToLook(_) => "reads what Stripe has",
            Self::AboutToMake(_) => "has the request authorized",
            Self::Looked(..) => "judges what it has seen",
            Self::Authorized(..) => "sends the request",
            Self::Answered(..) => "reports Stripe's answer",
        }
    }

    pub(super) fn has_a_step(&self) -> bool {
        !matches!(self, Self::Idle | Self::Asking(_))
    }
}

impl World {
    /// A worker takes the job of `id`, and reads its call.
    pub(super) fn begin(&mut self, worker: usize, id: Uuid) {
        // A job of a row that the ledger has lost: its message is parked.
        let Some(task) = self.rows.task(id, self.now) else { return };
        self.go_on(worker, task, None);
    }

    /// What the call's row says is next. `due` is its next attempt as it was before the report.
    fn go_on(&mut self, worker: usize, task: Task, due: Option<Option<DateTime<Utc>>>) {
        let id = task.call.id;
        let put_off = due.is_some_and(|due| task.call.next_attempt_at.is_some() && task.call.next_attempt_at != due);
        self.workers[worker] = match task.next_step(self.now) {
            _ if task.call.state == CallState::Open && put_off => return self.give_back(worker, id),
            NextStep::Nothing | NextStep::Park { .. } => Worker::Idle,
            NextStep::Wait { .. } => return self.give_back(worker, id),
            NextStep::Look => Worker::AboutToLook(task),
            NextStep::Make => Worker::AboutToMake(task),
        };
    }

    /// The job comes again: later, or at once to read the row anew.
    fn give_back(&mut self, worker: usize, id: Uuid) {
        self.workers[worker] = Worker::Idle;
        self.enqueue(id);
    }

    /// The worker that sent `sent`, if it still waits, has its answer.
    pub(super) fn answer(&mut self, sent: &Sent, said: Answer) {
        if let Some(worker) = sent.by
            && let Worker::Asking(task) = self.workers[worker].clone()
        {
            self.workers[worker] = Worker::Answered(task, said);
        }
    }

    /// The worker waits no longer, though its request may still be on its way.
    pub(super) fn gives_up(&mut self, worker: usize) {
        self.requests.iter_mut().filter(|sent| sent.by == Some(worker)).for_each(|sent| sent.by = None);
        self.requests.sort();
    }

    pub(super) fn step(&mut self, bounds: &Bounds, worker: usize) {
        match self.workers[worker].clone() {
            Worker::Idle | Worker::Asking(_) => {}
            Worker::AboutToMake(task) => self.authorize(bounds, worker, task),
            Worker::AboutToLook(task)
                if bounds.broken == Some(Broken::NoLookBeforeNewKey)
                    && task.is_owed()
                    && !task.may_be_made(self.now) =>
            {
                self.report(bounds, worker, task, TryOutcome::NewGeneration);
            }
            Worker::AboutToLook(task) => self.read_stripe(worker, task, Why::Look),
            Worker::Looked(task, list, why) => self.judge(bounds, worker, task, &list, why),
            Worker::Authorized(task, at) => {
                if self.now - at > AUTHORIZED_FOR {
                    return self.give_back(worker, task.call.id);
                }
                let request = Request::of(&wanted(bounds, &task));
                self.requests.push(Sent { call: task.call.id, by: Some(worker), request });
                self.requests.sort();
                self.workers[worker] = Worker::Asking(task);
            }
            Worker::Answered(task, answer) => self.follow(bounds, worker, task, answer),
        }
    }

    fn read_stripe(&mut self, worker: usize, task: Task, why: Why) {
        let transfer = target(&task).stripe_transfer_id.clone().unwrap_or_default();
        let list = self.stripe.reversals.iter().filter(|it| it.transfer == transfer).cloned().collect();
        self.workers[worker] = Worker::Looked(task, list, why);
    }

    fn authorize(&mut self, bounds: &Bounds, worker: usize, task: Task) {
        let read = guard(self, bounds, &task);
        let authorized = if bounds.broken == Some(Broken::MarkAfterCall) {
            self.rows.clone().authorize(&read, &mut self.ids, self.now).map(|_| task.clone())
        } else {
            self.commit(bounds, |rows, ids, now| rows.authorize(&read, ids, now))
        };
        match authorized {
            Ok(task) => self.workers[worker] = Worker::Authorized(task, self.now),
            Err(_) => self.give_back(worker, task.call.id),
        }
    }

    fn report(&mut self, bounds: &Bounds, worker: usize, task: Task, outcome: TryOutcome) {
        let mut read = guard(self, bounds, &task);
        if bounds.broken == Some(Broken::MarkAfterCall)
            && matches!(self.workers[worker], Worker::Answered(..))
            && let Ok(marked) = self.rows.authorize(&read, &mut self.ids, self.now)
        {
            read = marked;
        }
        let due = task.call.next_attempt_at;
        match self.commit(bounds, |rows, ids, now| rows.report(&read, outcome, ids, now)) {
            Ok(task) => self.go_on(worker, task, Some(due)),
            Err(_) => self.give_back(worker, task.call.id),
        }
    }

    /// What follows from Stripe's answer.
    fn follow(&mut self, bounds: &Bounds, worker: usize, task: Task, answer: Answer) {
        let outcome = match decide(&answer.report()) {
            Decision::Succeed { id, .. } => TryOutcome::Done { stripe_id: id, externally: false },
            Decision::Fail { .. } => TryOutcome::Failed(failure()),
            Decision::End { .. } => TryOutcome::Ended(failure()),
            Decision::Look { otherwise } => return self.read_stripe(worker, task, Why::Refused(otherwise, answer)),
            Decision::Retry { .. } if task.call.attempts >= bounds.max_retries => {
                return self.read_stripe(worker, task, Why::Exhausted(answer));
            }
            Decision::Retry { remainder } => self.later(remainder, Retries::Used),
            Decision::Wait { remainder, .. } => self.later(remainder, Retries::Kept),
            Decision::ReadAgain => return self.give_back(worker, task.call.id),
        };
        self.report(bounds, worker, task, outcome);
    }

    /// What follows from Stripe's list.
    fn judge(&mut self, bounds: &Bounds, worker: usize, task: Task, list: &[Reversal], why: Why) {
        let seen = seen(bounds, &task, list, self);
        let outcome = match why {
            Why::Look => match after_look(&task, seen, self.now, SETTLING) {
                AfterLook::Seen(seen) => outcome_of(seen),
                AfterLook::Accepted(_) => TryOutcome::Failed(failure()),
                AfterLook::Make => return self.authorize(bounds, worker, task),
                AfterLook::LookAgain => self.later(Remainder::Absent, Retries::Kept),
                AfterLook::NewGeneration => TryOutcome::NewGeneration,
                AfterLook::CallOff => TryOutcome::CalledOff(failure()),
            },
            Why::Refused(otherwise, _) => match after_refusal(otherwise, seen) {
                AfterRefusal::Seen(seen) => outcome_of(seen),
                AfterRefusal::DoneByAnother(id) => TryOutcome::Done { stripe_id: id, externally: true },
                AfterRefusal::LookAgain => self.later(Remainder::Unknown, Retries::Used),
                AfterRefusal::Fail => TryOutcome::Ended(failure()),
            },
            Why::Exhausted(_) => seen.seen.map_or(TryOutcome::Failed(failure()), outcome_of),
        };
        self.report(bounds, worker, task, outcome);
    }

    fn later(&self, remainder: Remainder, retries: Retries) -> TryOutcome {
        TryOutcome::Later(Postponement { until: self.now + DELAY, retries, remainder, failure: failure() })
    }
}

/// The task as the ledger is told of it.
fn guard(world: &World, bounds: &Bounds, task: &Task) -> Task {
    let mut read = task.clone();
    if bounds.broken == Some(Broken::NoVersionGuard)
        && let Some(row) = world.rows.calls.iter().find(|row| row.id == task.call.id)
    {
        read.call.version = row.version;
    }
    read
}

fn target(task: &Task) -> &ReversalTarget {
    match &task.target {
        Target::Reversal(target) => target,
        _ => unreachable!("the model has reversals only"),
    }
}

/// What Stripe is asked for.
fn wanted(bounds: &Bounds, task: &Task) -> ReverseTransfer {
    let command = command(&task.call, target(task));
    match bounds.broken {
        Some(Broken::RandomIds) => ReverseTransfer { claim: task.call.id.to_string(), ..command },
        _ => command,
    }
}

fn seen(bounds: &Bounds, task: &Task, list: &[Reversal], world: &World) -> Sight {
    let target = target(task);
    let id = target.stripe_transfer_id.clone().unwrap_or_default();
    let (transfer, reversals) = world.stripe.with_reversals(list).read(&id, &target.destination);
    sight(&wanted(bounds, task), &task.call, target, &transfer, &reversals)
}

fn outcome_of(seen: Seen) -> TryOutcome {
    match seen {
        Seen::Done { id, .. } => TryOutcome::Done { stripe_id: id, externally: false },
        Seen::Ended { .. } => TryOutcome::Ended(failure()),
        Seen::Mismatch { .. } | Seen::Accepted { .. } => TryOutcome::Failed(failure()),
    }
}

fn failure() -> Failure {
    Failure { code: "model".to_owned(), message: String::new() }
}
