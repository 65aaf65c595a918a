//! Order under fire: jobs of many keys over four worker processes, one of which is killed every second. Shows that the jobs
//! of each key were begun in order, and that none was lost.
//!
//! Workers append a line to one file when they begin a job. The system writes such lines one after the other, so the file is
//! one history of all processes.

use crate::Place;
use queues::{Delivery, Job, Message, Outcome, Worker};
use std::{
    collections::HashMap,
    env,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};
use tokio::time::sleep;

const WORKERS: usize = 4;
const KEYS: usize = 1000;
const PARTITIONS: u16 = 16;

#[derive(serde::Serialize, serde::Deserialize)]
struct Step {
    number: usize,
}

impl Job for Step {
    const KIND: &'static str = "step";
}

pub(crate) async fn run(mut place: Place, jobs: usize) {
    place.topology = place.topology.partitioned(PARTITIONS).unwrap();
    place.broker.declare(&place.topology).await.unwrap();
    let file = env::temp_dir().join(place.topology.queue());
    File::create(&file).unwrap();
    let publisher = crate::library::connected(&place).await;
    let message = |number: usize| {
        let (key, number) = (format!("key-{}", number % KEYS), number / KEYS);
        let message = Message::job(&place.topology, format!("{key}-{number}"), &Step { number }).unwrap();
        message.with_key(&place.topology, key)
    };
    let mut workers: Vec<Child> = (0..WORKERS).map(|_| start(&place, &file)).collect();
    let started = Instant::now();
    // Published while workers are killed.
    let publishing = tokio::spawn({
        let messages: Vec<Message> = (0..jobs).map(message).collect();
        async move {
            for result in publisher.publish_all(messages).await {
                result.unwrap();
            }
        }
    });
    let (mut kills, mut history) = (0, History::default());
    while history.distinct < jobs {
        sleep(Duration::from_secs(1)).await;
        let worker = &mut workers[kills % WORKERS];
        worker.kill().unwrap();
        worker.wait().unwrap();
        *worker = start(&place, &file);
        kills += 1;
        history = History::read(&file);
        assert!(kills < 1200, "{} of {jobs} jobs after 20 minutes", history.distinct);
    }
    publishing.await.unwrap();
    for mut worker in workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    assert_eq!(history.out_of_order, 0, "jobs were begun before an older one of their key");
    println!(
        "{jobs} jobs of {KEYS} keys in {PARTITIONS} partitions, {WORKERS} workers, {kills} killed: each key in order, none lost, \
         {} begun more than once, {:.0} s",
        history.lines - history.distinct,
        started.elapsed().as_secs_f64()
    );
    std::fs::remove_file(&file).unwrap();
    crate::bare::delete(&place).await;
}

#[derive(Default)]
struct History {
    lines: usize,
    distinct: usize,
    /// Jobs whose first beginning came before that of an older job of their key.
    out_of_order: usize,
}

impl History {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let mut next: HashMap<&str, usize> = HashMap::new();
        let mut history = Self::default();
        // The last line may be half written.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (key, number) = line.split_once(' ').unwrap();
            let (number, next): (usize, _) = (number.parse().unwrap(), next.entry(key).or_default());
            history.lines += 1;
            if number > *next {
                history.out_of_order += 1;
            } else if number == *next {
                *next += 1;
                history.distinct += 1;
            }
        }
        history
    }
}

fn start(place: &Place, file: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--order-worker", place.topology.queue()]).arg(file).spawn().unwrap()
}

/// A worker process: ends when it is killed.
pub(crate) async fn work(name: &str, file: &str) {
    let mut place = Place::named(name);
    place.topology = place.topology.partitioned(PARTITIONS).unwrap();
    let file = OpenOptions::new().append(true).open(file).unwrap();
    let worker = Worker::new(&place.broker, place.topology.clone(), place.policy).concurrency(50);
    let worker = worker.register(move |job: Step, delivery: Delivery| {
        let line = format!("{} {}\n", delivery.key.unwrap(), job.number);
        (&file).write_all(line.as_bytes()).unwrap();
        async {
            sleep(Duration::from_millis(1)).await;
            Outcome::Done
        }
    });
    worker.run(std::future::pending()).await.unwrap();
}
