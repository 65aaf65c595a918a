//! Who does a job: the trait that users implement, and its type-erased form that the worker keeps one of per kind.
//! It never settles a message.

use crate::{Delivery, Job, Outcome};
use futures_util::future::BoxFuture;
use std::{future::Future, marker::PhantomData};

/// Does one kind of job. Any `Fn(J, Delivery) -> impl Future<Output = Outcome>` is one; shared state goes into the
/// closure's captures or the type's fields.
///
/// A message comes at least once: a handler must give the same result when it runs twice, also at the same time. Its
/// future is dropped at an `await` when it outlasts the job timeout or the drain timeout.
pub trait Handler<J: Job>: Send + Sync + 'static {
    /// Does the job, and says what becomes of its message. A panic counts as [`Outcome::Retry`] with the panic's text.
    fn handle(&self, job: J, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
}

impl<J, F, Fut> Handler<J> for F
where
    J: Job,
    F: Fn(J, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send,
{
    fn handle(&self, job: J, delivery: Delivery) -> impl Future<Output = Outcome> + Send {
        self(job, delivery)
    }
}

/// A handler whose job type is forgotten.
pub(crate) trait AnyHandler: Send + Sync {
    /// Decodes the payload and starts the job.
    fn start<'a>(&'a self, payload: &[u8], delivery: Delivery) -> serde_json::Result<BoxFuture<'a, Outcome>>;
}

/// Remembers which job a handler is for: one type may handle several kinds.
pub(crate) struct HandlerOf<J, H>(H, PhantomData<fn(J)>);

impl<J, H> HandlerOf<J, H> {
    pub(crate) fn new(handler: H) -> Self {
        Self(handler, PhantomData)
    }
}

impl<J: Job, H: Handler<J>> AnyHandler for HandlerOf<J, H> {
    fn start<'a>(&'a self, payload: &[u8], delivery: Delivery) -> serde_json::Result<BoxFuture<'a, Outcome>> {
        let job: J = serde_json::from_slice(payload)?;
        Ok(Box::pin(self.0.handle(job, delivery)))
    }
}
