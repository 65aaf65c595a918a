//! Jobs of one key: their order, also behind one that is tried again and beyond the death of a worker; and their limits.

use crate::support::{Bench, Count, Running, amqp_url, bench, bench_with, eventually, program, scripted};
use queues::{
    Delivery, Job, KeyLimit, Message, Outcome, Publisher, RetryOrder, RetryPolicy, Selection, Topology, Worker,
    WorkerError,
    chrono::{DateTime, Utc},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File, OpenOptions},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

fn partitioned(count: u16) -> impl FnOnce(Topology) -> Topology {
    move |topology| topology.partitioned(count).unwrap()
}

/// Publishes jobs named `KEY-NUMBER`, in this order.
async fn publish(bench: &Bench, jobs: impl IntoIterator<Item = (String, u32)>) {
    let message = |(key, number): (String, u32)| {
        let message = Message::job(&bench.topology, format!("{key}-{number}"), &Count { number }).unwrap();
        message.with_key(&bench.topology, key)
    };
    let messages = jobs.into_iter().map(message).collect();
    for result in Publisher::start(&bench.broker).publish_all(messages).await {
        result.unwrap();
    }
}

fn jobs(keys: &[&str], numbers: std::ops::Range<u32>) -> Vec<(String, u32)> {
    numbers.flat_map(|number| keys.iter().map(move |key| ((*key).to_owned(), number))).collect()
}

/// Of each key the numbers, in the order in which they were begun for the first time.
fn firsts(begun: impl IntoIterator<Item = (String, u32)>) -> BTreeMap<String, Vec<u32>> {
    let mut firsts = BTreeMap::<String, Vec<u32>>::new();
    for (key, number) in begun {
        let numbers = firsts.entry(key).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    firsts
}

fn count(firsts: &BTreeMap<String, Vec<u32>>) -> u32 {
    firsts.values().map(|numbers| numbers.len() as u32).sum()
}

#[tokio::test]
async fn jobs_of_a_key_are_begun_in_order_although_workers_die_and_none_is_lost() {
    const KEYS: u32 = 40;
    const EACH: u32 = 50;
    bench_with(&[100], partitioned(4), async |bench| {
        let begun = Arc::new(Mutex::new(Vec::<(usize, String, u32)>::new()));
        let start = |worker: usize| {
            let begun = Arc::clone(&begun);
            let running = bench.worker().prefetch(20).register(move |job: Count, delivery: Delivery| {
                begun.lock().unwrap().push((worker, delivery.key.unwrap(), job.number));
                async {
                    sleep(Duration::from_millis(2)).await;
                    Outcome::Done
                }
            });
            tokio::spawn(running.run(std::future::pending()))
        };
        let mut workers = [0, 1, 2].map(start);
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
        publish(&bench, jobs(&keys.iter().map(String::as_str).collect::<Vec<_>>(), 0..EACH)).await;
        // Each in the middle of its work.
        for _ in 0..6 {
            let before = begun.lock().unwrap().len();
            let at =
                eventually("work", async || begun.lock().unwrap().get(before + 100).map(|(worker, ..)| *worker)).await;
            workers[at].abort();
            assert!(begun.lock().unwrap().len() < (KEYS * EACH) as usize, "the load was over before the worker died");
            workers[at] = start(at);
        }
        let firsts = || firsts(begun.lock().unwrap().iter().map(|(_, key, number)| (key.clone(), *number)));
        eventually("all jobs", async || (count(&firsts()) == KEYS * EACH).then_some(())).await;
        for (key, numbers) in firsts() {
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
        workers.iter().for_each(tokio::task::JoinHandle::abort);
    })
    .await;
}

/// A worker process: `examples/ordered_worker.rs`. It leaves its lines in a file.
fn start_process(bench: &Bench, partitions: u16, lines: &NamedFile) -> Child {
    let output = OpenOptions::new().append(true).open(&lines.0).unwrap();
    let mut command = Command::new(program("ordered_worker"));
    command.args([&amqp_url(), &bench.name, &partitions.to_string()]).stdin(Stdio::null()).stdout(output);
    command.kill_on_drop(true).spawn().unwrap()
}

/// Removed at the end of the test.
struct NamedFile(PathBuf);

impl NamedFile {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(name);
        File::create_new(&path).unwrap();
        Self(path)
    }

    /// What was begun: the time, the process, the key, the number.
    fn begun(&self) -> Vec<(u128, u32, String, u32)> {
        let text = fs::read_to_string(&self.0).unwrap();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| {
                let [time, process, id] = line.trim_end().splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
                let (key, number) = id.rsplit_once('-').unwrap();
                (time.parse().unwrap(), process.parse().unwrap(), key.to_owned(), number.parse().unwrap())
            })
            .collect()
    }
}

impl Drop for NamedFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn jobs_of_a_key_are_begun_in_order_although_processes_of_workers_are_killed() {
    const KEYS: u32 = 20;
    const EACH: u32 = 100;
    bench_with(&[100], partitioned(3), async |bench| {
        let lines = NamedFile::new(&bench.name);
        let mut workers: Vec<Child> = (0..3).map(|_| start_process(&bench, 3, &lines)).collect();
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
        publish(&bench, jobs(&keys.iter().map(String::as_str).collect::<Vec<_>>(), 0..EACH)).await;
        // Each in the middle of its work.
        for _ in 0..4 {
            let before = lines.begun().len();
            let (_, process, ..) =
                eventually("work", async || lines.begun().split_off(before).into_iter().nth(100)).await;
            let at = workers.iter().position(|worker| worker.id() == Some(process)).unwrap();
            workers[at].start_kill().unwrap();
            workers[at].wait().await.unwrap();
            assert!(lines.begun().len() < (KEYS * EACH) as usize, "the load was over before the worker was killed");
            workers[at] = start_process(&bench, 3, &lines);
        }
        let firsts = || {
            let mut begun = lines.begun();
            begun.sort();
            firsts(begun.into_iter().map(|(_, _, key, number)| (key, number)))
        };
        eventually("all jobs", async || (count(&firsts()) == KEYS * EACH).then_some(())).await;
        for (key, numbers) in firsts() {
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn partitions_are_shared_with_a_worker_that_comes_later_and_their_order_is_kept() {
    bench_with(&[100], partitioned(4), async |bench| {
        let begun = Arc::new(Mutex::new(Vec::<(usize, String, u32)>::new()));
        let start = async |worker: usize| {
            let begun = Arc::clone(&begun);
            let running = bench.worker().prefetch(20).register(move |job: Count, delivery: Delivery| {
                begun.lock().unwrap().push((worker, delivery.key.unwrap(), job.number));
                async {
                    sleep(Duration::from_millis(5)).await;
                    Outcome::Done
                }
            });
            Running::start(running).await
        };
        let first = start(0).await;
        let keys: Vec<String> = (0..16).map(|key| format!("key-{key}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(keys.iter().map(|key| bench.topology.work_queue_of(key)).collect::<BTreeSet<_>>().len(), 4);
        publish(&bench, jobs(&keys, 0..10)).await;
        eventually("the first's work", async || (begun.lock().unwrap().len() > 100).then_some(())).await;
        let second = start(1).await;
        let mut published = 10;
        while !begun.lock().unwrap().iter().any(|(worker, ..)| *worker == 1) {
            assert!(published < 3000, "the second worker has nothing to do");
            publish(&bench, jobs(&keys, published..published + 1)).await;
            published += 1;
            sleep(Duration::from_millis(10)).await;
        }
        let at = begun.lock().unwrap().len();
        publish(&bench, jobs(&keys, published..published + 20)).await;
        let all = keys.len() as u32 * (published + 20);
        let firsts = || firsts(begun.lock().unwrap().iter().map(|(_, key, number)| (key.clone(), *number)));
        eventually("all jobs", async || (count(&firsts()) == all).then_some(())).await;
        for (key, numbers) in firsts() {
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
        let workers_of = |worker: usize| {
            let begun = begun.lock().unwrap();
            let queues = begun[at..].iter().filter(|(by, ..)| *by == worker);
            queues.map(|(_, key, _)| bench.topology.work_queue_of(key)).collect::<BTreeSet<_>>().len()
        };
        assert!(workers_of(0) >= 2 && workers_of(1) == 2, "{} and {}", workers_of(0), workers_of(1));
        first.stop().await;
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_tried_again_holds_back_its_key_alone_until_it_is_parked_and_comes_back_to_its_queue() {
    bench_with(&[400], partitioned(2), async |bench| {
        let (handler, mut heard) =
            scripted::<Count>(|delivery| match (delivery.message_id.as_str(), &delivery.parked_at) {
                ("a-0", None) => Outcome::Retry { reason: "no luck".to_owned() },
                _ => Outcome::Done,
            });
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, jobs(&["a", "b", "c", "d"], 0..3)).await;
        let (mut order, mut attempts) = (Vec::new(), Vec::new());
        for _ in 0..14 {
            let (_, delivery, at) = heard.next().await;
            if delivery.message_id == "a-0" {
                attempts.push((delivery.attempt, at));
            }
            order.push(delivery.message_id);
        }
        let place = |id: &str, after: usize| order.iter().skip(after).position(|other| other == id).unwrap() + after;
        assert_eq!(attempts.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(attempts.windows(2).all(|pair| pair[1].1 - pair[0].1 >= Duration::from_millis(400)), "{attempts:?}");
        for other in ["b-2", "c-2", "d-2"] {
            assert!(place(other, 0) < place("a-0", place("a-0", 0) + 1), "held back too: {order:?}");
        }
        assert_eq!(order[12..], ["a-1", "a-2"]);
        assert_eq!(bench.ready(&bench.topology.retry_queue(Duration::from_millis(400))).await, 0);
        assert_eq!(bench.parked(1).await[0]["properties"]["headers"]["attempt"], 3);
        bench.parking().replay(&Selection::id("a-0"), Duration::ZERO).await.unwrap();
        let (_, delivery, _) = heard.next().await;
        assert_eq!((delivery.message_id.as_str(), delivery.key.as_deref()), ("a-0", Some("a")));
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn where_retries_may_be_overtaken_a_key_goes_on_and_the_retry_comes_to_the_same_queue() {
    bench_with(&[200], partitioned(3), async |bench| {
        let (handler, mut heard) =
            scripted::<Count>(|delivery| match (delivery.message_id.as_str(), delivery.attempt) {
                ("a-0", 1) => Outcome::Retry { reason: "once".to_owned() },
                _ => Outcome::Done,
            });
        let worker = bench.worker().retry_order(RetryOrder::Overtake).register(handler);
        let worker = Running::start(worker).await;
        publish(&bench, jobs(&["a"], 0..3)).await;
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(heard.next().await.1.message_id);
        }
        assert_eq!(order, ["a-0", "a-1", "a-2", "a-0"]);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_worker_holds_keeps_its_order_when_it_is_paused_and_when_another_takes_over() {
    bench_with(&[60_000], partitioned(1), async |bench| {
        let ready = Arc::new(AtomicBool::new(false));
        let held = |delivery: &Delivery, ready: &AtomicBool| match delivery.message_id == "a-0"
            && !ready.load(Ordering::Relaxed)
        {
            true => Outcome::Snooze { delay: Duration::from_secs(60), reason: "not ready".to_owned() },
            false => Outcome::Done,
        };
        let flag = Arc::clone(&ready);
        let (handler, mut heard) = scripted::<Count>(move |delivery| held(delivery, &flag));
        let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(60), 2);
        let worker = Worker::new(&bench.broker, bench.topology.clone(), policy).register(handler);
        let (control, first) = (worker.control(), Running::start(worker).await);
        publish(&bench, jobs(&["a", "b"], 0..2)).await;
        let mut begun = Vec::new();
        for _ in 0..3 {
            begun.push(heard.next().await.1.message_id);
        }
        begun.sort();
        assert_eq!(begun, ["a-0", "b-0", "b-1"]);
        control.pause();
        bench.given_back(2).await;
        control.resume();
        assert_eq!(heard.next().await.1.message_id, "a-0");
        let flag = Arc::clone(&ready);
        let (handler, mut heard_by_second) = scripted::<Count>(move |delivery| held(delivery, &flag));
        let second = Running::start(Worker::new(&bench.broker, bench.topology.clone(), policy).register(handler)).await;
        ready.store(true, Ordering::Relaxed);
        first.stop().await;
        heard.nothing_more();
        for id in ["a-0", "a-1"] {
            assert_eq!(heard_by_second.next().await.1.message_id, id);
        }
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_limited_key_starts_no_more_often_than_it_may_and_others_are_done_meanwhile() {
    const SPACING: Duration = Duration::from_millis(50);
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let limit = KeyLimit::new().rate(20, Duration::from_secs(1));
        // So few that they would all be the limited key's, were none sent away.
        let worker = Running::start(bench.worker().prefetch(6).limit_per_key(limit).register(handler)).await;
        let published = Instant::now();
        publish(&bench, jobs(&["a"], 0..20)).await;
        let others: Vec<String> = (0..20).map(|number| format!("other-{number}")).collect();
        publish(&bench, jobs(&others.iter().map(String::as_str).collect::<Vec<_>>(), 0..1)).await;
        let (mut starts, mut others_done) = (Vec::<Instant>::new(), 0);
        while starts.len() < 20 {
            let (_, delivery, at) = heard.next().await;
            assert_eq!(delivery.attempt, 1);
            match delivery.key.as_deref() {
                Some("a") => starts.push(at),
                _ => others_done += 1,
            }
            assert!(others_done == 20 || starts.len() < 18, "others wait for the limited key: {others_done}");
        }
        // Not only on the whole, which would let a burst pass behind a late start. What one start is noticed late is for the others.
        for some in starts.windows(6) {
            assert!(some[5] - some[0] >= SPACING * 2, "a burst: {starts:?}");
        }
        assert!(starts[19] - published >= SPACING * 19, "{starts:?}");
        worker.stop().await;
    })
    .await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct New;

impl Job for New {
    const KIND: &'static str = "new";
}

/// How often the old worker has looked at a job.
static LOOKS: AtomicU32 = AtomicU32::new(0);

fn counted_now() -> DateTime<Utc> {
    LOOKS.fetch_add(1, Ordering::Relaxed);
    Utc::now()
}

#[tokio::test]
async fn a_kind_that_an_old_worker_does_not_know_waits_with_its_key_until_a_new_worker_takes_over() {
    bench_with(&[20], partitioned(1), async |bench| {
        let (handler, _heard) = scripted::<Count>(|_| Outcome::Done);
        let policy = RetryPolicy::new(Duration::from_millis(20), Duration::from_millis(20), 1);
        let worker = || Worker::new(&bench.broker, bench.topology.clone(), policy);
        let old = Running::start(worker().clock(counted_now).register(handler)).await;
        let message = Message::job(&bench.topology, "a-0", &New).unwrap().with_key(&bench.topology, "a");
        Publisher::start(&bench.broker).publish(message).await.unwrap();
        publish(&bench, jobs(&["a"], 1..2)).await;
        eventually("more looks than deliveries that a queue allows", async || {
            (LOOKS.load(Ordering::Relaxed) > 2 * Topology::DELIVERY_LIMIT).then_some(())
        })
        .await;
        let done = Arc::new(Mutex::new(Vec::new()));
        let (of_new, of_count) = (Arc::clone(&done), Arc::clone(&done));
        let new = worker()
            .register(move |_: New, delivery: Delivery| {
                of_new.lock().unwrap().push(delivery.message_id);
                std::future::ready(Outcome::Done)
            })
            .register(move |_: Count, delivery: Delivery| {
                of_count.lock().unwrap().push(delivery.message_id);
                std::future::ready(Outcome::Done)
            });
        let new = Running::start(new).await;
        old.stop().await;
        eventually("both jobs", async || (done.lock().unwrap().len() == 2).then_some(())).await;
        assert_eq!(*done.lock().unwrap(), ["a-0", "a-1"]);
        new.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_policy_whose_retries_would_hold_a_key_for_too_long_is_refused() {
    let hour = Duration::from_secs(3600);
    let topology = Topology::new("jobs", "q", [hour]).unwrap().partitioned(2).unwrap();
    let broker = queues::Broker::new("amqp://127.0.0.1:1", "test").unwrap();
    let worker = Worker::new(&broker, topology, RetryPolicy::new(hour, hour, 1))
        .register(scripted::<Count>(|_| Outcome::Done).0);
    let refused = worker.run(std::future::pending()).await.unwrap_err();
    assert!(matches!(&refused, WorkerError::HeldTooLong { retries: 1, .. }), "{refused}");
}
