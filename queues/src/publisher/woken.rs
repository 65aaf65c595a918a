//! Which of many futures have been woken, so that only those are polled. Used for the messages in flight. It polls nothing.

use futures_util::task::AtomicWaker;
use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Wake, Waker},
};

/// The numbers of the futures that have been woken, and the task to wake for them.
#[derive(Default)]
pub(super) struct Woken {
    numbers: Mutex<Vec<u64>>,
    task: AtomicWaker,
}

struct Number {
    number: u64,
    woken: Arc<Woken>,
}

impl Woken {
    /// The waker of the future with this number.
    pub(super) fn waker(self: &Arc<Self>, number: u64) -> Waker {
        Waker::from(Arc::new(Number { number, woken: Arc::clone(self) }))
    }

    /// The task to wake from now on. Before [`take`](Self::take), so that no wake-up is missed.
    pub(super) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// The numbers since the last call, in the order of their wake-ups; one may be there more than once.
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
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
