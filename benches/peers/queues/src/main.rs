//! This library, bare lapin, apalis-amqp and queuey at the same work: on one broker, in one run, on durable quorum queues, with a
//! 300-byte body and interleaved rounds. `./dev bench queues --peers` runs it on a broker of its own, in a vhost whose default
//! queue type is quorum: queuey asks for no type.
//!
//! `--messages N` a round, `--rounds N`, `--memory N` jobs at which the memory is measured. The last lines are the README's table.

mod apalis;
#[expect(dead_code, reason = "the comparison with bare lapin alone uses more of it")]
#[path = "../../../../queues/benches/queues/bare.rs"]
mod bare;
#[path = "../../../../queues/benches/queues/library.rs"]
mod library;
#[path = "../../../../queues/benches/queues/place.rs"]
mod place;
mod queuey;
#[path = "../../../../queues/benches/queues/tally.rs"]
mod tally;

use lapin::{
    Connection, ConnectionProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use place::argument;
pub(crate) use place::{Note, Place};
use std::{
    env, fs,
    process::Command,
    time::{Duration, Instant},
};
use tally::{median, milliseconds};

/// Unacknowledged messages that each may hold: best for bare lapin, and more than any of the others has by default.
const PREFETCH: u16 = 1000;
/// Messages whose publishing is measured as one.
const CHUNK: usize = 10_000;

#[derive(Clone, Copy, PartialEq)]
enum Contender {
    Bare,
    Library,
    Apalis,
    Queuey,
}

const ALL: [(Contender, &str); 4] = [
    (Contender::Bare, "bare lapin"),
    (Contender::Library, "this library"),
    (Contender::Apalis, "apalis-amqp"),
    (Contender::Queuey, "queuey"),
];

impl Contender {
    fn queue(self, place: &Place) -> &str {
        match self {
            Self::Bare | Self::Library => place.topology.queue(),
            Self::Apalis => apalis::QUEUE,
            Self::Queuey => queuey::QUEUE,
        }
    }

    /// Messages a second.
    async fn publish(self, place: &Place, count: usize) -> f64 {
        match self {
            Self::Bare => bare::publish(place, place.messages(count)).await,
            Self::Library => library::publish(place, place.messages(count)).await,
            Self::Apalis => apalis::publish(place, count).await,
            Self::Queuey => queuey::publish(place, count).await,
        }
    }

    /// Jobs a second.
    async fn consume(self, place: &Place, count: usize) -> f64 {
        match self {
            Self::Bare => bare::consume(place, count, PREFETCH, usize::from(PREFETCH / 4)).await,
            Self::Library => library::consume(place, count, PREFETCH).await,
            Self::Apalis => apalis::consume(place, count).await,
            Self::Queuey => queuey::consume(place, count).await,
        }
    }

    async fn latency(self, place: &Place, count: usize) -> Vec<Duration> {
        match self {
            Self::Bare => bare::latency(place, count).await,
            Self::Library => library::latency(place, count).await,
            Self::Apalis => apalis::latency(place, count).await,
            Self::Queuey => queuey::latency(place, count).await,
        }
    }
}

#[tokio::main]
async fn main() {
    let place = Place::new();
    place.broker.declare(&place.topology).await.unwrap();
    let arguments: Vec<String> = env::args().collect();
    if let [_, number, jobs] = arguments.as_slice()
        && let Some((contender, _)) = number.parse::<usize>().ok().and_then(|number| ALL.get(number))
    {
        measure_memory(*contender, &place, jobs.parse().unwrap()).await;
        return bare::delete(&place).await;
    }
    let (messages, rounds, jobs) =
        (argument("--messages", 20_000), argument("--rounds", 5), argument("--memory", 1_000_000));
    let mut rates = [const { (Vec::new(), Vec::new()) }; ALL.len()];
    for round in 0..=rounds {
        for turn in 0..ALL.len() {
            let at = (round + turn) % ALL.len();
            let (contender, name) = ALL[at];
            let published = contender.publish(&place, messages).await;
            let consumed = contender.consume(&place, messages).await;
            place.clear(contender.queue(&place), name).await;
            println!("round {round}: {name}: {published:.0} published a second, {consumed:.0} handled");
            // The first is for warming up.
            if round > 0 {
                rates[at].0.push(published);
                rates[at].1.push(consumed);
            }
        }
    }
    println!(
        "\n| {messages} messages a round, {rounds} rounds | published a second | handled a second | latency, median (99 %), ms | memory at {jobs} jobs, MB |"
    );
    println!("|---|---|---|---|---|");
    for (at, (contender, name)) in ALL.into_iter().enumerate() {
        assert_quorum(&place, contender.queue(&place)).await;
        let latencies = contender.latency(&place, 500).await;
        place.clear(contender.queue(&place), name).await;
        let (published, consumed) = &mut rates[at];
        println!(
            "| {name} | {:.0} | {:.0} | {:.1} ({:.1}) | {} |",
            median(published),
            median(consumed),
            milliseconds(&latencies, 50),
            milliseconds(&latencies, 99),
            memory_of(at, jobs),
        );
    }
    bare::delete(&place).await;
}

/// A queue that is declared otherwise ends the run.
async fn assert_quorum(place: &Place, queue: &str) {
    let connection = Connection::connect(&place.url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    if queue != place.topology.queue() {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }
    connection.close(200, "OK".into()).await.unwrap();
}

/// In a process of its own.
fn memory_of(contender: usize, jobs: usize) -> String {
    let output = Command::new(env::current_exe().unwrap()).args([contender.to_string(), jobs.to_string()]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
}

/// Publishes jobs, then handles them with one worker, and prints the peak of this process's resident memory.
async fn measure_memory(contender: Contender, place: &Place, jobs: usize) {
    for chunk in 0..jobs.div_ceil(CHUNK) {
        let count = CHUNK.min(jobs - chunk * CHUNK);
        match contender {
            // Its publishing declares the queue for each job: with a million that takes too long.
            Contender::Apalis => apalis::fill(place, count).await,
            _ => drop(contender.publish(place, count).await),
        }
    }
    let started = Instant::now();
    contender.consume(place, jobs).await;
    eprintln!("{jobs} jobs handled in {:.1?}", started.elapsed());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{:.0}", kibibytes * 1.024 / 1000.0);
}
