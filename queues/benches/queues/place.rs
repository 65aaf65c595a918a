//! Where a run takes place: queues of its own, and the message of every measurement.

use crate::bare;
use queues::{Broker, Job, Message, RetryPolicy, Topology};
use std::{env, time::Duration};
use uuid::Uuid;

/// Together with its field's name and braces a body of 300 bytes.
const TEXT_BYTES: usize = 300 - r#"{"text":""}"#.len();

/// The job of every measurement.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Note {
    text: String,
}

impl Note {
    pub(crate) fn new() -> Self {
        Self { text: "x".repeat(TEXT_BYTES) }
    }
}

impl Job for Note {
    const KIND: &'static str = "note";
}

pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) broker: Broker,
    pub(crate) topology: Topology,
    pub(crate) policy: RetryPolicy,
}

impl Place {
    pub(crate) fn named(name: &str) -> Self {
        let url = env::var("AMQP_URL").expect("AMQP_URL is not set: run `./dev bench queues`, which starts a broker");
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 1);
        let topology = Topology::new(format!("{name}.jobs"), name, policy.delays()).unwrap();
        let broker = Broker::new(&url, name).unwrap();
        Self { url, broker, topology, policy }
    }

    /// With a name of its own.
    pub(crate) fn new() -> Self {
        Self::named(&format!("bench-{}", Uuid::now_v7()))
    }

    /// With partitions, of a thousand keys.
    pub(crate) fn messages(&self, count: usize) -> Vec<Message> {
        let job = Note::new();
        let message = |number: usize| {
            let message = Message::job(&self.topology, Uuid::now_v7(), &job).unwrap();
            match self.topology.is_partitioned() {
                true => message.with_key(&self.topology, format!("key-{}", number % 1000)),
                false => message,
            }
        };
        (0..count).map(message).collect()
    }

    /// A broker may still be passing acknowledgements on to the queue when their channel ends, and then delivers those
    /// messages again: they must not be in the next measurement.
    pub(crate) async fn clear(&self, queue: &str, after: &str) {
        let left = bare::purge(self, queue).await;
        if left > 0 {
            println!("{after}: {left} messages came back although they were acknowledged");
        }
    }
}

pub(crate) fn argument(name: &str, default: usize) -> usize {
    let mut arguments = env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map_or(default, |value| value.parse().expect("the arguments are numbers"))
}
