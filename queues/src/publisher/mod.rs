//! Publishing: the handle that users and workers hold. A task behind it owns the connection.

mod in_flight;
mod outgoing;
mod places;
mod task;

pub(crate) use outgoing::{Outgoing, PERSISTENT};

use crate::{Broker, ConnectionState, Message, measure::PublisherMetrics};
use futures_util::future::join_all;
use in_flight::Receipt;
use places::{Lane, Place, Places};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use task::{Request, Task};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a message waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// How long it waits for its confirm, the wait before writing included.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
const WAITING_REQUESTS: usize = 1000;

/// Publishes persistent, mandatory, confirmed messages over one dedicated connection, which is renewed when lost. `Ok` means
/// that a queue has the message on disk; every error names the message.
///
/// Clones share the connection; it closes with the last one. Messages to one queue keep their order while nothing fails, those of different queues have none.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// A message, and where its result stands.
type Numbered = (usize, Outgoing);

struct Shared {
    app_id: String,
    places: Places,
    requests: mpsc::Sender<Request>,
    waiting_count: Arc<AtomicUsize>,
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
        let waiting_count: Arc<AtomicUsize> = Arc::default();
        let task = Task {
            broker: broker.clone(),
            requests: waiting,
            waiting: HashMap::new(),
            waiting_count: Arc::clone(&waiting_count),
            state: state_sender,
            stop: stop.clone(),
            metrics: PublisherMetrics::new(),
        };
        tokio::spawn(task.run());
        let app_id = broker.connection_name().to_owned();
        let _stop_with_the_last_clone = stop.clone().drop_guard();
        Self {
            shared: Arc::new(Shared {
                app_id,
                places: Places::default(),
                requests,
                waiting_count,
                state,
                stop,
                _stop_with_the_last_clone,
            }),
        }
    }

    /// Publishes one message and waits for its confirm: at most 5 s for a connection and 20 s for the confirm.
    ///
    /// # Errors
    /// [`PublishError`]; unless it says that the message was not sent or not stored, it may have arrived.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let outgoing = Outgoing::new(message, &self.shared.app_id)?;
        self.send(outgoing).await
    }

    /// Publishes many messages, with hundreds in flight; results are in the same order. One failure does not stop the others,
    /// and a queue that confirms nothing holds up none for another queue. But when a queue takes nothing for 20 s, because it
    /// has no leader, or the broker blocks us or is away, then all that wait for it fail with [`PublishError::TimedOut`].
    ///
    /// # Errors
    /// Each result is as from [`publish`](Self::publish).
    pub async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let connected = self.connected().await;
        let mut results = Vec::with_capacity(messages.len());
        let mut of_lanes: HashMap<Lane, (Arc<Semaphore>, Vec<Numbered>)> = HashMap::new();
        for (index, message) in messages.into_iter().enumerate() {
            results.push(match (Outgoing::new(message, &self.shared.app_id), &connected) {
                (Err(error), _) => Err(error),
                (Ok(outgoing), Err(reason)) => {
                    Err(PublishError::NotConnected { id: outgoing.id, reason: reason.clone() })
                }
                (Ok(outgoing), Ok(())) => {
                    let (lane, places) = self.shared.places.of(&outgoing.exchange, &outgoing.routing_key);
                    of_lanes.entry(lane).or_insert_with(|| (places, Vec::new())).1.push((index, outgoing));
                    Ok(())
                }
            });
        }
        let publishing =
            of_lanes.into_iter().map(|(lane, (places, messages))| self.publish_in_order(lane, places, messages));
        let published = join_all(publishing).await;
        for (index, result) in published.into_iter().flatten() {
            results[index] = result;
        }
        results
    }

    /// Publishes the messages of one lane.
    async fn publish_in_order(
        &self,
        lane: Lane,
        places: Arc<Semaphore>,
        messages: Vec<Numbered>,
    ) -> Vec<(usize, Result<(), PublishError>)> {
        let mut pending = Vec::with_capacity(messages.len());
        let mut stands_still = false;
        for (index, outgoing) in messages {
            if stands_still {
                pending.push((index, Err(PublishError::TimedOut { id: outgoing.id })));
                continue;
            }
            let enqueued = self.enqueue(outgoing, lane.clone(), Arc::clone(&places)).await;
            stands_still = matches!(enqueued, Err(PublishError::TimedOut { .. }));
            pending.push((index, enqueued));
        }
        let mut results = Vec::with_capacity(pending.len());
        for (index, pending) in pending {
            results.push((
                index,
                match pending {
                    Ok(pending) => pending.result().await,
                    Err(error) => Err(error),
                },
            ));
        }
        results
    }

    /// The connection's state, to be read or awaited.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.clone()
    }

    /// Waits (at most 5 s) for messages in flight, closes the connection, and refuses later messages, for all
    /// clones.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        // An error means that the task is gone.
        let ended =
            |state: &ConnectionState| matches!(state, ConnectionState::Closed | ConnectionState::Refused { .. });
        let _ = self.state().wait_for(ended).await;
    }

    /// What a health check should know.
    #[must_use]
    pub fn health(&self) -> PublisherHealth {
        let requests = &self.shared.requests;
        let unread = requests.max_capacity().saturating_sub(requests.capacity());
        let waiting = unread + self.shared.waiting_count.load(Ordering::Relaxed);
        PublisherHealth { connection: self.shared.state.borrow().clone(), waiting }
    }

    /// Publishes a message with complete properties.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        if let Err(reason) = self.connected().await {
            return Err(PublishError::NotConnected { id: outgoing.id, reason });
        }
        let (lane, places) = self.shared.places.of(&outgoing.exchange, &outgoing.routing_key);
        self.enqueue(outgoing, lane, places).await?.result().await
    }

    /// Waits for a connection, or answers why there is none.
    async fn connected(&self) -> Result<(), String> {
        let mut state = self.state();
        let usable = |state: &ConnectionState| !matches!(state, ConnectionState::Reconnecting { .. });
        match timeout(CONNECTION_WAIT, state.wait_for(usable)).await {
            Ok(Ok(state)) => match &*state {
                ConnectionState::Closed => return Err("the publisher is closed".to_owned()),
                ConnectionState::Refused { error } => return Err(error.clone()),
                _ => return Ok(()),
            },
            Ok(Err(_)) => return Err("the runtime of the publisher is shut down".to_owned()),
            Err(_) => {}
        }
        match &*state.borrow() {
            ConnectionState::Reconnecting { last_error: Some(error), .. } => Err(error.clone()),
            _ => Err(format!("none within {CONNECTION_WAIT:?}")),
        }
    }

    async fn enqueue(&self, outgoing: Outgoing, lane: Lane, places: Arc<Semaphore>) -> Result<Pending, PublishError> {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let id = outgoing.id.clone();
        let (sender, result) = oneshot::channel();
        let handed_over = async {
            let place: Place = places.acquire_owned().await.ok()?;
            let receipt = Receipt { result: sender, _place: place };
            self.shared.requests.send(Request { outgoing, lane, receipt }).await.ok()
        };
        match timeout_at(deadline, handed_over).await {
            Ok(Some(())) => Ok(Pending { id, deadline, result }),
            Ok(None) => Err(PublishError::NotConnected { id, reason: "the publisher is closed".to_owned() }),
            Err(_) => Err(PublishError::TimedOut { id }),
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("state", &*self.shared.state.borrow()).finish_non_exhaustive()
    }
}

/// A publisher at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherHealth {
    /// The state of its connection.
    pub connection: ConnectionState,
    /// How many messages wait to be written.
    pub waiting: usize,
}

/// A message handed to the task.
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

/// A message that the broker has not confirmed. Unless the variant says otherwise the message may have arrived: publish it
/// again; handlers must tolerate a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// AMQP cannot carry the message; it was not sent.
    #[error("message {id:?} cannot be published: {problem}")]
    Invalid {
        /// The message's id.
        id: String,
        /// Which field is wrong, and what is allowed.
        problem: String,
    },
    /// There was no connection in time, or the publisher is closed; it was not sent.
    #[error("message {id:?} was not published: no connection to the broker: {reason}")]
    NotConnected {
        /// The message's id.
        id: String,
        /// Why there is none.
        reason: String,
    },
    /// No queue took it: the exchange has no binding for its routing key, or the queue is missing. Not stored.
    #[error("message {id:?} was returned by the broker ({reply}): no queue takes it; declare the topology")]
    Returned {
        /// The message's id.
        id: String,
        /// The broker's reply.
        reply: String,
    },
    /// The exchange does not exist. Not stored, unless the exchange was deleted while the message was on its way.
    #[error("message {id:?} was not published: there is no exchange {exchange:?}; declare the topology")]
    NoExchange {
        /// The message's id.
        id: String,
        /// The exchange.
        exchange: String,
    },
    /// The broker could not store it.
    #[error("message {id:?} was refused by the broker (nack): its queue is full or unavailable")]
    Nacked {
        /// The message's id.
        id: String,
    },
    /// No confirm in time: the broker is slow, or blocks publishers because of an alarm.
    #[error("message {id:?} was not confirmed in time; it may have arrived")]
    TimedOut {
        /// The message's id.
        id: String,
    },
    /// The connection ended before the confirm came.
    #[error("message {id:?} was not confirmed before the connection was lost: {reason}; it may have arrived")]
    ConnectionLost {
        /// The message's id.
        id: String,
        /// Why the connection ended.
        reason: String,
    },
}

impl PublishError {
    /// Whether no queue has it for sure. (An exchange that is deleted while a message is on its way is left out of account.)
    #[cfg(feature = "testing")]
    pub(crate) fn is_not_stored(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. } | Self::NotConnected { .. } | Self::NoExchange { .. } | Self::Returned { .. }
        )
    }

    /// The message's id.
    #[must_use]
    pub fn message_id(&self) -> &str {
        match self {
            Self::Invalid { id, .. }
            | Self::NotConnected { id, .. }
            | Self::Returned { id, .. }
            | Self::NoExchange { id, .. }
            | Self::Nacked { id }
            | Self::TimedOut { id }
            | Self::ConnectionLost { id, .. } => id,
        }
    }
}
