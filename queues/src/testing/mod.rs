//! For users' tests (feature `testing`): a queue of its own for each test, on RabbitMQ or on a broker in memory whose
//! delays need not be waited for.

mod memory;
mod test_queue;

pub use memory::MemoryBroker;
pub use test_queue::{TestQueue, TestQueueError};
