//! Worker processes that are killed with jobs in flight: `examples/fault_worker.rs`.

use crate::support::{JOBS, Place, outcome_of, program, publish_until_confirmed, shared_broker};
use queues::Outcome;
use std::{collections::BTreeSet, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

struct WorkerProcess {
    child: Child,
    handled: Lines<BufReader<ChildStdout>>,
}

impl WorkerProcess {
    fn start(url: &str, place: &Place) -> Self {
        let mut command = Command::new(program("fault_worker"));
        command.arg(url).arg(place.name()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let handled = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, handled }
    }

    /// Adds the numbers that the worker reports until there are `count`; false when the worker ended before.
    async fn report(&mut self, seen: &mut BTreeSet<u32>, count: usize) -> bool {
        while seen.len() < count {
            let line = timeout(crate::support::PATIENCE, self.handled.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{} of {count} jobs were handled", seen.len())).unwrap();
            let Some(line) = line else { return false };
            seen.insert(line.parse().unwrap());
        }
        true
    }

    /// SIGKILL, and what it had still reported.
    async fn kill(mut self, seen: &mut BTreeSet<u32>) {
        self.child.start_kill().unwrap();
        self.report(seen, usize::MAX).await;
        self.child.wait().await.unwrap();
    }
}

#[tokio::test]
async fn jobs_that_a_killed_worker_had_in_flight_are_handled_by_the_next_one() {
    let url = shared_broker();
    Place::run(&url, &url, async |place| {
        publish_until_confirmed(&place, 0..JOBS).await;
        let mut seen = BTreeSet::new();
        for until in [2000, 5000, 8000] {
            let mut worker = WorkerProcess::start(&url, &place);
            assert!(worker.report(&mut seen, until).await, "a worker ended by itself");
            worker.kill(&mut seen).await;
            assert!(seen.len() < JOBS as usize, "the load was over before the worker was killed");
        }
        let mut worker = WorkerProcess::start(&url, &place);
        assert!(worker.report(&mut seen, JOBS as usize).await, "a worker ended by itself");
        place.drained().await;
        worker.kill(&mut seen).await;
        place.drained().await;
        let parked: BTreeSet<u32> = place.parked().await.iter().map(|job| job.id.parse().unwrap()).collect();
        let expected: BTreeSet<u32> =
            (0..JOBS).filter(|number| matches!(outcome_of(*number, 1), Outcome::Park { .. })).collect();
        assert_eq!(parked, expected);
    })
    .await;
}
