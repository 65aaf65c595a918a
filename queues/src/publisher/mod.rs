//! Publishing: the handle that users and the worker hold. The task behind it does the work.

mod error;
mod in_flight;
mod outgoing;
mod task;
mod woken;

pub use error::PublishError;
pub(crate) use outgoing::{Outgoing, PERSISTENT};

use crate::{Broker, ConnectionState, Message, measure::PublisherMetrics};
use std::{fmt, sync::Arc, time::Duration};
use task::{Request, Task};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a message waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// How long it waits for its confirm, with its turn to be written.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
const WAITING_REQUESTS: usize = 1000;

/// Publishes messages, each persistent, mandatory and confirmed, over one connection of its own that is renewed when it
/// is lost. `Ok` means that a queue has the message on disk; every error names the message.
///
/// Clones share the connection; when the last one is dropped it is closed. Ordering between messages is kept as far as
/// they go to one queue and nothing fails.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    app_id: String,
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<ConnectionState>,
    stop: CancellationToken,
    _stop_with_the_last_clone: DropGuard,
}

impl Publisher {
    /// Starts connecting, and returns at once. Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(broker: &Broker) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING_REQUESTS);
        let (state_sender, state) = watch::channel(ConnectionState::starting());
        let stop = CancellationToken::new();
        let task = Task {
            broker: broker.clone(),
            requests: waiting,
            state: state_sender,
            stop: stop.clone(),
            metrics: PublisherMetrics::new(),
        };
        tokio::spawn(task.run());
        let app_id = broker.connection_name().to_owned();
        let _stop_with_the_last_clone = stop.clone().drop_guard();
        Self { shared: Arc::new(Shared { app_id, requests, state, stop, _stop_with_the_last_clone }) }
    }

    /// Publishes one message and waits until the broker has confirmed it: at most 5 s for a connection and 20 s for the
    /// confirm.
    ///
    /// # Errors
    /// [`PublishError`]; unless it says that the message was not sent or not stored, it may have arrived.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let outgoing = Outgoing::new(message, &self.shared.app_id)?;
        self.send(outgoing).await
    }

    /// Publishes many messages, with hundreds in flight, and answers in the same order: one that fails does not stop the
    /// others. Only when nothing moves for 20 s, because the broker blocks us or is away, are those that wait behind not sent
    /// either: their error is [`PublishError::TimedOut`] too.
    ///
    /// # Errors
    /// Each result is as from [`publish`](Self::publish).
    pub async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let connected = self.connected().await;
        let mut pending = Vec::with_capacity(messages.len());
        let mut stands_still = false;
        for message in messages {
            let outgoing = Outgoing::new(message, &self.shared.app_id);
            pending.push(match (outgoing, &connected) {
                (Err(error), _) => Err(error),
                (Ok(outgoing), Err(reason)) => {
                    Err(PublishError::NotConnected { id: outgoing.id, reason: reason.clone() })
                }
                (Ok(outgoing), Ok(())) if stands_still => Err(PublishError::TimedOut { id: outgoing.id }),
                (Ok(outgoing), Ok(())) => {
                    let enqueued = self.enqueue(outgoing).await;
                    stands_still = matches!(enqueued, Err(PublishError::TimedOut { .. }));
                    enqueued
                }
            });
        }
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(match pending {
                Ok(pending) => pending.result().await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// The connection's state, to be read or awaited.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.clone()
    }

    /// Waits (at most some seconds) for what is in flight, closes the connection, and refuses what comes later. For all
    /// clones.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        // An error means that the task is gone, which is as closed as can be.
        let _ = self.state().wait_for(|state| *state == ConnectionState::Closed).await;
    }

    /// Publishes a message whose properties are set.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        if let Err(reason) = self.connected().await {
            return Err(PublishError::NotConnected { id: outgoing.id, reason });
        }
        self.enqueue(outgoing).await?.result().await
    }

    /// Waits for a connection, or for the reason why there is none.
    async fn connected(&self) -> Result<(), String> {
        let mut state = self.state();
        let usable = |state: &ConnectionState| !matches!(state, ConnectionState::Reconnecting { .. });
        match timeout(CONNECTION_WAIT, state.wait_for(usable)).await {
            Ok(Ok(state)) if *state == ConnectionState::Closed => return Err("the publisher is closed".to_owned()),
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => return Err("the runtime of the publisher is shut down".to_owned()),
            Err(_) => {}
        }
        match &*state.borrow() {
            ConnectionState::Reconnecting { last_error: Some(error), .. } => Err(error.clone()),
            _ => Err(format!("none within {CONNECTION_WAIT:?}")),
        }
    }

    async fn enqueue(&self, outgoing: Outgoing) -> Result<Pending, PublishError> {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let id = outgoing.id.clone();
        let (receipt, result) = oneshot::channel();
        match timeout_at(deadline, self.shared.requests.send(Request { outgoing, receipt })).await {
            Ok(Ok(())) => Ok(Pending { id, deadline, result }),
            Ok(Err(_)) => Err(PublishError::NotConnected { id, reason: "the publisher is closed".to_owned() }),
            Err(_) => Err(PublishError::TimedOut { id }),
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("state", &*self.shared.state.borrow()).finish_non_exhaustive()
    }
}

/// A message that the task has been asked to publish.
struct Pending {
    id: String,
    deadline: Instant,
    result: oneshot::Receiver<Result<(), PublishError>>,
}

impl Pending {
    async fn result(self) -> Result<(), PublishError> {
        match timeout_at(self.deadline, self.result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(PublishError::ConnectionLost { id: self.id, reason: "the publisher's task ended".to_owned() })
            }
            Err(_) => Err(PublishError::TimedOut { id: self.id }),
        }
    }
}
