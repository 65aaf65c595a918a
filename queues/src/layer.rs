//! Middleware: tower layers around handlers (feature `tower`).

use crate::{Delivery, Outcome, job::AnyHandler};
use futures_util::future::BoxFuture;
use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};
use tower_service::Service;

/// Any error of a middleware: it becomes [`Outcome::Retry`].
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One attempt at a job, as middleware sees it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// The job's message, without its payload. The handler gets what the last middleware passes on.
    pub delivery: Delivery,
    /// The job's JSON.
    pub payload: Vec<u8>,
}

impl Attempt {
    /// For tests of a layer: with [`Delivery::new`], and the job's JSON.
    #[must_use]
    pub fn new(delivery: Delivery, payload: Vec<u8>) -> Self {
        Self { delivery, payload }
    }
}

impl fmt::Debug for Attempt {
    /// Without the payload, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("delivery", &self.delivery).field("payload_bytes", &self.payload.len()).finish()
    }
}

/// The handler at the center of its layers: always ready, never fails.
#[derive(Clone)]
pub struct HandlerService(pub(crate) Arc<dyn AnyHandler>);

impl fmt::Debug for HandlerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerService").finish_non_exhaustive()
    }
}

impl Service<Attempt> for HandlerService {
    type Response = Outcome;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Outcome, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let handler = Arc::clone(&self.0);
        Box::pin(async move { Ok(handler.start(&attempt.payload, attempt.delivery).await) })
    }
}

/// A handler with its layers, as a handler again.
pub(crate) struct Layered<S> {
    pub(crate) service: S,
    pub(crate) least_concurrency: usize,
}

impl<S> AnyHandler for Layered<S>
where
    S: Service<Attempt, Response: Into<Outcome>, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
{
    fn start<'a>(&'a self, payload: &[u8], delivery: Delivery) -> BoxFuture<'a, Outcome> {
        let (mut service, attempt) = (self.service.clone(), Attempt { delivery, payload: payload.to_vec() });
        Box::pin(async move {
            let failed = |error: S::Error| Outcome::retry(error.into());
            if let Err(outcome) = poll_fn(|context| service.poll_ready(context)).await.map_err(failed) {
                return outcome;
            }
            service.call(attempt).await.map_or_else(failed, Into::into)
        })
    }

    fn least_concurrency(&self) -> usize {
        self.least_concurrency
    }
}
