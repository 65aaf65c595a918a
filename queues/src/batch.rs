//! Handlers that take several jobs at once. The first job of a batch leads it: it waits for the others, runs the handler
//! and hands out the outcomes. No task outlives the jobs it serves.

use crate::{
    Delivery, Job, Outcome,
    job::{AnyHandler, decode},
};
use futures_util::future::{BoxFuture, ready};
use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

const CUT_OFF: &str = "the handler of its batch panicked or was cut off";

/// One job of a batch that is being collected.
struct Member<J> {
    job: J,
    delivery: Delivery,
    /// `None` for the leader, who has the outcomes.
    outcome: Option<oneshot::Sender<Outcome>>,
}

/// The batch that takes jobs at present.
struct Open<J> {
    number: u64,
    members: Vec<Member<J>>,
    full: oneshot::Sender<Vec<Member<J>>>,
}

/// A batch handler and the batch that it collects.
pub(crate) struct Batched<J, F> {
    size: usize,
    wait: Duration,
    handler: F,
    open: Mutex<(u64, Option<Open<J>>)>,
}

/// What a job is to its batch.
enum Role<'a, J> {
    Leader(Lead<'a, J>),
    Follower(oneshot::Receiver<Outcome>),
}

/// Dissolves the batch when its leader is cut off: its followers then learn that nobody does their job.
struct Lead<'a, J> {
    open: &'a Mutex<(u64, Option<Open<J>>)>,
    number: u64,
    full: oneshot::Receiver<Vec<Member<J>>>,
}

impl<J: Job, F> Batched<J, F> {
    pub(crate) fn new(size: usize, wait: Duration, handler: F) -> Self {
        Self { size: size.max(1), wait, handler, open: Mutex::new((0, None)) }
    }

    fn join(&self, job: J, delivery: Delivery) -> Role<'_, J> {
        let mut guard = lock(&self.open);
        let (number, open) = &mut *guard;
        let role = if let Some(open) = open {
            let (outcome, receiver) = oneshot::channel();
            open.members.push(Member { job, delivery, outcome: Some(outcome) });
            Role::Follower(receiver)
        } else {
            *number += 1;
            let (full, receiver) = oneshot::channel();
            let members = vec![Member { job, delivery, outcome: None }];
            *open = Some(Open { number: *number, members, full });
            Role::Leader(Lead { open: &self.open, number: *number, full: receiver })
        };
        if let Some(Open { members, full, .. }) = open.take_if(|open| open.members.len() >= self.size) {
            // The leader is there: its end takes the batch away.
            let _ = full.send(members);
        }
        role
    }
}

impl<J> Lead<'_, J> {
    /// The members, once there are enough or the time is over.
    async fn collect(&mut self, wait: Duration) -> Vec<Member<J>> {
        if let Ok(Ok(members)) = timeout(wait, &mut self.full).await {
            return members;
        }
        match self.take() {
            Some(members) => members,
            // It became full at this moment.
            None => self.full.try_recv().unwrap_or_default(),
        }
    }

    fn take(&self) -> Option<Vec<Member<J>>> {
        let (_, open) = &mut *lock(self.open);
        open.take_if(|open| open.number == self.number).map(|open| open.members)
    }
}

impl<J> Drop for Lead<'_, J> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

// A panic while the lock is held can't leave the batch in a bad state.
fn lock<J>(open: &Mutex<(u64, Option<Open<J>>)>) -> MutexGuard<'_, (u64, Option<Open<J>>)> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<J, F, Fut, O> AnyHandler for Batched<J, F>
where
    J: Job,
    F: Fn(Vec<(J, Delivery)>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<O>> + Send,
    O: Into<Outcome> + Send,
{
    fn start<'a>(&'a self, payload: &[u8], delivery: Delivery) -> BoxFuture<'a, Outcome> {
        let job = match decode(payload) {
            Ok(job) => job,
            Err(outcome) => return Box::pin(ready(outcome)),
        };
        Box::pin(async move {
            let mut lead = match self.join(job, delivery) {
                Role::Follower(outcome) => return outcome.await.unwrap_or_else(|_| Outcome::retry(CUT_OFF)),
                Role::Leader(lead) => lead,
            };
            let (mut jobs, mut followers) = (Vec::new(), Vec::new());
            for Member { job, delivery, outcome } in lead.collect(self.wait).await {
                jobs.push((job, delivery));
                followers.extend(outcome);
            }
            let expected = jobs.len();
            let mut outcomes: Vec<Outcome> = (self.handler)(jobs).await.into_iter().map(Into::into).collect();
            if outcomes.len() != expected {
                let got = outcomes.len();
                let reason = format!("a batch handler must return one outcome for each of {expected} jobs (got {got})");
                outcomes = vec![Outcome::retry(reason); expected];
            }
            let mut outcomes = outcomes.into_iter();
            let own = outcomes.next().unwrap_or(Outcome::GiveBack);
            for (follower, outcome) in followers.into_iter().zip(outcomes) {
                // A follower that is gone was cut off; its message comes again.
                let _ = follower.send(outcome);
            }
            own
        })
    }

    fn least_concurrency(&self) -> usize {
        self.size
    }
}
