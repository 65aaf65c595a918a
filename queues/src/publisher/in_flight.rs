//! The messages that are written and unanswered, and what each answer means.

use super::{PublishError, places::Place};
use crate::measure::PublisherMetrics;
use futures_util::task::AtomicWaker;
use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};
use tokio::{sync::oneshot, time::Instant};

/// Where a message's result goes. Its place comes free with it.
pub(super) struct Receipt {
    pub(super) result: oneshot::Sender<Result<(), PublishError>>,
    pub(super) _place: Place,
}

impl Receipt {
    pub(super) fn send(self, result: Result<(), PublishError>) {
        // The caller may have given up waiting.
        let _ = self.result.send(result);
    }
}

/// The answer to one message. The return that it carries may be another message's.
#[derive(Debug)]
pub(super) enum Answer {
    Acked(Option<Returned>),
    Nacked(Option<Returned>),
    /// The channel or the connection ended.
    Lost(Lost),
}

/// Why a channel or a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// The channel was closed because the exchange is missing.
    pub(super) no_exchange: bool,
}

/// Identifies a message: a job's copies share the id but not the destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Route {
    id: String,
    exchange: String,
    routing_key: String,
}

impl Route {
    pub(super) fn new(id: &str, exchange: &str, routing_key: &str) -> Self {
        Self { id: id.to_owned(), exchange: exchange.to_owned(), routing_key: routing_key.to_owned() }
    }
}

/// A message that no queue took.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) route: Route,
    pub(super) reply: String,
}

/// In the order of writing, and settled from the front only: the broker sends a return before its ack, and lapin hands the
/// oldest return that it holds to whichever confirm resolves next. A message's own return may so come with the confirm of an
/// older or a younger message. Once the front is answered and every answer so far has been looked at, lapin can hold returns
/// of younger messages only: the front's own return, if any, has been taken.
pub(super) struct InFlight<F> {
    entries: VecDeque<Entry<F>>,
    /// How many were written before the front: entries are numbered from 0.
    settled: u64,
    /// The numbers of entries that may have been answered since the last look.
    woken: Arc<Woken>,
    returned: HashMap<Route, VecDeque<String>>,
    refused: bool,
    metrics: PublisherMetrics,
}

struct Entry<F> {
    route: Route,
    receipt: Receipt,
    written_at: Instant,
    progress: Progress<F>,
    waker: Waker,
}

enum Progress<F> {
    Waiting(F),
    Acked,
    Nacked,
}

impl<F: Future<Output = Answer> + Unpin> InFlight<F> {
    pub(super) fn new(metrics: PublisherMetrics) -> Self {
        let (entries, woken, returned) = (VecDeque::new(), Arc::default(), HashMap::new());
        Self { entries, settled: 0, woken, returned, refused: false, metrics }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a queue refused (nacked) a message.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// When the oldest message was written.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.written_at)
    }

    /// Adds a message, and starts it: `answer` is polled once, here.
    ///
    /// # Errors
    /// When the channel turns out to be lost.
    pub(super) fn push(&mut self, route: Route, receipt: Receipt, answer: F) -> Result<(), Lost> {
        let waker = self.woken.waker(self.settled + self.entries.len() as u64);
        let mut entry =
            Entry { route, receipt, written_at: Instant::now(), progress: Progress::Waiting(answer), waker };
        let started = look(&mut entry, &mut self.returned);
        self.metrics.published.increment(1);
        self.entries.push_back(entry);
        started
    }

    /// Ready once the front, and all answered messages behind it, are settled.
    pub(super) fn poll_settle(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.woken.register(context.waker());
        // Until none is left: an answer can be seen before its own wake-up, but not before the wake-ups of earlier answers,
        // because lapin answers and wakes one after the other. So everything answered before the last of the prefix has
        // been looked at when this ends.
        loop {
            let numbers = self.woken.take();
            if numbers.is_empty() {
                break;
            }
            for number in numbers {
                // An entry that is gone was woken twice.
                let index = number.checked_sub(self.settled).and_then(|index| usize::try_from(index).ok());
                if let Some(entry) = index.and_then(|index| self.entries.get_mut(index))
                    && let Err(lost) = look(entry, &mut self.returned)
                {
                    return Poll::Ready(Err(lost));
                }
            }
        }
        let settled_before = self.settled;
        let is_answered = |entry: &Entry<F>| !matches!(entry.progress, Progress::Waiting(_));
        while self.entries.front().is_some_and(is_answered)
            && let Some(entry) = self.entries.pop_front()
        {
            self.settled += 1;
            let result = self.result(&entry);
            entry.receipt.send(result);
        }
        if self.settled > settled_before { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Nothing was answered for too long.
    pub(super) fn time_out(&mut self) {
        for Entry { route, receipt, .. } in self.entries.drain(..) {
            receipt.send(Err(PublishError::TimedOut { id: route.id }));
        }
        self.returned.clear();
    }

    /// Nothing more will be answered.
    pub(super) fn fail_all(&mut self, lost: &Lost) {
        for Entry { route: Route { id, exchange, .. }, receipt, .. } in self.entries.drain(..) {
            let reason = lost.reason.clone();
            let error = if lost.no_exchange {
                PublishError::NoExchange { id, exchange }
            } else {
                PublishError::ConnectionLost { id, reason }
            };
            receipt.send(Err(error));
        }
        self.returned.clear();
    }

    /// The reason for which the channel was closed, which lapin tells the waiting messages a moment after it has refused to
    /// write others.
    pub(super) async fn closing_reason(&mut self, known: Lost) -> Lost {
        for entry in &mut self.entries {
            if known.no_exchange {
                break;
            }
            let Progress::Waiting(answer) = &mut entry.progress else { continue };
            match answer.await {
                Answer::Lost(lost) if lost.no_exchange => return lost,
                Answer::Lost(_) | Answer::Nacked(_) => entry.progress = Progress::Nacked,
                Answer::Acked(_) => entry.progress = Progress::Acked,
            }
        }
        known
    }

    fn result(&mut self, entry: &Entry<F>) -> Result<(), PublishError> {
        let id = entry.route.id.clone();
        if let Some(replies) = self.returned.get_mut(&entry.route)
            && let Some(reply) = replies.pop_front()
        {
            if replies.is_empty() {
                self.returned.remove(&entry.route);
            }
            self.metrics.returned.increment(1);
            return Err(PublishError::Returned { id, reply });
        }
        match entry.progress {
            Progress::Acked => {
                self.metrics.confirmed.increment(1);
                Ok(())
            }
            Progress::Waiting(_) | Progress::Nacked => {
                self.refused = true;
                Err(PublishError::Nacked { id })
            }
        }
    }
}

/// Takes the entry's answer, if there is one by now.
fn look<F: Future<Output = Answer> + Unpin>(
    entry: &mut Entry<F>,
    returned: &mut HashMap<Route, VecDeque<String>>,
) -> Result<(), Lost> {
    let Progress::Waiting(answer) = &mut entry.progress else { return Ok(()) };
    let mut context = Context::from_waker(&entry.waker);
    let Poll::Ready(answer) = std::pin::Pin::new(answer).poll(&mut context) else { return Ok(()) };
    let (progress, message) = match answer {
        Answer::Acked(message) => (Progress::Acked, message),
        Answer::Nacked(message) => (Progress::Nacked, message),
        Answer::Lost(lost) => {
            // Its future has ended, and must not be polled again.
            entry.progress = Progress::Nacked;
            return Err(lost);
        }
    };
    entry.progress = progress;
    if let Some(Returned { route, reply }) = message {
        returned.entry(route).or_default().push_back(reply);
    }
    Ok(())
}

/// The numbers of the futures that were woken, so only those are polled, and the task to wake for them.
#[derive(Default)]
struct Woken {
    numbers: Mutex<Vec<u64>>,
    task: AtomicWaker,
}

struct Number {
    number: u64,
    woken: Arc<Woken>,
}

impl Woken {
    /// The waker of the future with this number.
    fn waker(self: &Arc<Self>, number: u64) -> Waker {
        Waker::from(Arc::new(Number { number, woken: Arc::clone(self) }))
    }

    /// The task to wake from now on. Call it before [`take`](Self::take), or a wake-up is missed.
    fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// The numbers since the last call, in the order of their wake-ups, perhaps with duplicates.
    fn take(&self) -> Vec<u64> {
        mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for Number {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.numbers.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.woken.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    type Flights = InFlight<BoxFuture<'static, Answer>>;
    type Answers = Vec<Option<oneshot::Sender<Answer>>>;
    type Results = Vec<oneshot::Receiver<Result<(), PublishError>>>;

    fn gone() -> Lost {
        Lost { reason: "gone".to_owned(), no_exchange: false }
    }

    fn route(number: usize) -> Route {
        Route::new(&number.to_string(), "exchange", "key")
    }

    /// The flights of `count` messages, the ends that answer them, and the ends that hear their results.
    fn flights(count: usize) -> (Flights, Answers, Results) {
        let (mut flights, mut answers, mut results) =
            (Flights::new(PublisherMetrics::new()), Answers::new(), Results::new());
        let places = Arc::new(tokio::sync::Semaphore::new(count));
        for number in 0..count {
            let (answer, answered) = oneshot::channel::<Answer>();
            let (sender, result) = oneshot::channel();
            let place = Arc::clone(&places).try_acquire_owned().unwrap();
            let receipt = Receipt { result: sender, _place: place };
            let answered = Box::pin(async move { answered.await.unwrap() }) as BoxFuture<'static, Answer>;
            flights.push(route(number), receipt, answered).unwrap();
            answers.push(Some(answer));
            results.push(result);
        }
        (flights, answers, results)
    }

    proptest! {
        /// As lapin does it: a return waits in a queue, and each confirm that resolves takes the first one along.
        #[test]
        fn whatever_the_order_of_confirms_exactly_the_returned_messages_fail(
            messages in proptest::collection::vec((any::<bool>(), any::<u16>(), any::<bool>()), 1..40),
        ) {
            let (mut flights, mut answers, mut results) = flights(messages.len());
            let mut waiting: VecDeque<usize> = VecDeque::new();
            let mut order: Vec<usize> = (0..messages.len()).collect();
            order.sort_by_key(|number| messages[*number].1);
            let mut returned_up_to = 0;
            for number in order {
                // Returns come in the order of publishing, each before its own confirm.
                while returned_up_to <= number {
                    if messages[returned_up_to].0 {
                        waiting.push_back(returned_up_to);
                    }
                    returned_up_to += 1;
                }
                let returned = waiting.pop_front().map(|number| Returned { route: route(number), reply: String::new() });
                answers[number].take().unwrap().send(Answer::Acked(returned)).unwrap();
                if messages[number].2 {
                    let _ = flights.poll_settle(&mut Context::from_waker(Waker::noop()));
                }
            }
            let _ = flights.poll_settle(&mut Context::from_waker(Waker::noop()));
            prop_assert!(flights.is_empty() && flights.returned.is_empty(), "something is kept for ever");
            for (number, result) in results.iter_mut().enumerate() {
                let failed = matches!(result.try_recv().unwrap(), Err(PublishError::Returned { .. }));
                prop_assert_eq!(failed, messages[number].0, "message {}", number);
            }
        }
    }

    #[test]
    fn a_lost_connection_fails_all_that_is_not_settled_by_name() {
        let (mut flights, mut answers, mut results) = flights(3);
        let mut context = Context::from_waker(Waker::noop());
        answers[1].take().unwrap().send(Answer::Acked(None)).unwrap();
        assert!(flights.poll_settle(&mut context).is_pending(), "message 0 is not answered yet");
        answers[0].take().unwrap().send(Answer::Lost(gone())).unwrap();
        assert_eq!(flights.poll_settle(&mut context), Poll::Ready(Err(gone())));
        flights.fail_all(&gone());
        for (number, result) in results.iter_mut().enumerate() {
            let lost = PublishError::ConnectionLost { id: number.to_string(), reason: "gone".to_owned() };
            assert_eq!(result.try_recv().unwrap(), Err(lost));
        }
    }

    #[test]
    fn a_nack_is_an_error() {
        let (mut flights, mut answers, mut results) = flights(1);
        answers[0].take().unwrap().send(Answer::Nacked(None)).unwrap();
        assert!(flights.poll_settle(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(results[0].try_recv().unwrap(), Err(PublishError::Nacked { id: "0".to_owned() }));
        assert!(flights.was_refused());
    }
}
