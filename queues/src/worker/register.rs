//! Which handler runs for which kind of job, and what is wrapped around it.

use super::Worker;
#[cfg(feature = "tower")]
use crate::layer::{Attempt, HandlerService, Layered};
use crate::{
    Delivery, Handler, Job, Outcome, RetryPolicy,
    batch::Batched,
    job::{AnyHandler, HandlerOf},
};
use std::{future::Future, sync::Arc, time::Duration};

pub(super) struct Registered {
    pub(super) handler: Arc<dyn AnyHandler>,
    pub(super) policy: Option<RetryPolicy>,
}

impl Worker {
    /// Sets the handler of one kind of job. Several kinds may share the queue. With a second handler of a kind, by whichever of
    /// these methods, [`run`](Self::run) ends with [`DuplicateKind`](crate::WorkerError::DuplicateKind).
    pub fn register<J: Job, H: Handler<J>>(self, handler: H) -> Self {
        self.add(J::KIND, Arc::new(HandlerOf::<J, H>::new(handler)), None)
    }

    /// Like [`register`](Self::register), with a retry policy for this kind alone. The topology must declare its delays too, or
    /// [`run`](Self::run) ends with [`MissingDelays`](crate::WorkerError::MissingDelays).
    pub fn register_with_policy<J: Job, H: Handler<J>>(self, policy: RetryPolicy, handler: H) -> Self {
        self.add(J::KIND, Arc::new(HandlerOf::<J, H>::new(handler)), Some(policy))
    }

    /// Sets a handler that takes up to `size` jobs at once, or what has come `wait` after the first of them. It returns an
    /// outcome (or a `Result`) for each, in their order, and each job is settled by its own. Each of them counts as a job that
    /// runs: with a `size` (0 counts as 1) beyond the [`concurrency`](Self::concurrency) or the [`prefetch`](Self::prefetch)
    /// [`run`](Self::run) ends with [`BatchTooLarge`](crate::WorkerError::BatchTooLarge). The [`job_timeout`](Self::job_timeout)
    /// includes the wait: `wait` must be shorter, or a batch that does not become full is cut off.
    ///
    /// ```no_run
    /// # use queues::*;
    /// # use std::time::Duration;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct IndexPage { url: String }
    /// # impl Job for IndexPage { const KIND: &'static str = "index_page"; }
    /// # async fn insert_all(_: &[String]) -> Result<(), std::io::Error> { Ok(()) }
    /// # fn register(worker: Worker) -> Worker {
    /// worker.concurrency(50).register_batch(50, Duration::from_millis(200), |jobs: Vec<(IndexPage, Delivery)>| async move {
    ///     let urls: Vec<String> = jobs.into_iter().map(|(job, _)| job.url).collect();
    ///     let inserted = insert_all(&urls).await;
    ///     urls.iter().map(|_| inserted.as_ref().copied().map_err(Outcome::retry)).collect::<Vec<_>>()
    /// })
    /// # }
    /// ```
    pub fn register_batch<J, F, Fut, O>(self, size: usize, wait: Duration, handler: F) -> Self
    where
        J: Job,
        F: Fn(Vec<(J, Delivery)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<O>> + Send,
        O: Into<Outcome> + Send + 'static,
    {
        self.add(J::KIND, Arc::new(Batched::new(size, wait, handler)), None)
    }

    /// Like [`register_batch`](Self::register_batch), with a retry policy for this kind alone. The topology must declare its
    /// delays too, or [`run`](Self::run) ends with [`MissingDelays`](crate::WorkerError::MissingDelays).
    pub fn register_batch_with_policy<J, F, Fut, O>(
        self,
        policy: RetryPolicy,
        size: usize,
        wait: Duration,
        handler: F,
    ) -> Self
    where
        J: Job,
        F: Fn(Vec<(J, Delivery)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<O>> + Send,
        O: Into<Outcome> + Send + 'static,
    {
        self.add(J::KIND, Arc::new(Batched::new(size, wait, handler)), Some(policy))
    }

    fn add(mut self, kind: &'static str, handler: Arc<dyn AnyHandler>, policy: Option<RetryPolicy>) -> Self {
        if self.handlers.insert(kind, Registered { handler, policy }).is_some() {
            self.duplicate = Some(kind);
        }
        self
    }

    /// Wraps every handler that was registered before with a tower layer; the last layer is the outermost. Feature `tower`.
    ///
    /// A layer sees each attempt before its payload is decoded, within the job's `tracing` span and the
    /// [`job_timeout`](Self::job_timeout). An error of the middleware is [`Outcome::Retry`] with its text. While a layer is not
    /// ready (a concurrency limit), the job waits, and holds its place among those that run at a time.
    ///
    /// ```no_run
    /// # use queues::*;
    /// # use std::time::Duration;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct SendReceipt;
    /// # impl Job for SendReceipt { const KIND: &'static str = "send_receipt"; }
    /// # fn build(worker: Worker) -> Worker {
    /// worker
    ///     .register(|_: SendReceipt, _: Delivery| async { Outcome::Done })
    ///     .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(5)))
    ///     .layer(tower::limit::GlobalConcurrencyLimitLayer::new(3))
    /// # }
    /// ```
    #[cfg(feature = "tower")]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: tower_layer::Layer<HandlerService>,
        L::Service: tower_service::Service<
                Attempt,
                Response: Into<Outcome>,
                Error: Into<Box<dyn std::error::Error + Send + Sync>>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
    {
        for registered in self.handlers.values_mut() {
            let least_concurrency = registered.handler.least_concurrency();
            let service = layer.layer(HandlerService(Arc::clone(&registered.handler)));
            registered.handler = Arc::new(Layered { service, least_concurrency });
        }
        self
    }

    pub(super) fn policy_of(&self, kind: &str) -> &RetryPolicy {
        self.handlers.get(kind).and_then(|registered| registered.policy.as_ref()).unwrap_or(&self.policy)
    }
}
