//! One run from beginning to end. Each phase begins after a checkpoint, and with nothing running that it does not need.

use std::{collections::BTreeMap, ops::Range, thread, time::Instant};

use anyhow::{Result, ensure};
use sea_orm::sqlx::{PgPool, query, query_scalar};

use crate::{
    Arguments, backlog, bare,
    children::Child,
    cost::{Memory, Snapshot},
    database, drain, latency,
    peers::{PEERS, Peer},
    place::Place,
    program,
    report::{self, Import, Intakes, Machine, Measured, Report},
    simulator, webhooks,
};

/// Sent before anything is measured.
const WARM_UP: u32 = 200;
/// Refunds that are sent one at a time at the end.
const ONE_BY_ONE: u32 = 300;

struct Rounds {
    place: Place,
    db: PgPool,
    simulator: Child,
}

/// Measures, prints, and checks what it has measured.
///
/// # Errors
/// When a part fails, or a refund was not reversed exactly once.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let place = Place::from_environment()?;
    let db = database::prepare(&place).await?;
    let rounds = Rounds { simulator: simulator::start(&place).await?, place, db };
    let report = rounds.measure(arguments).await?;
    rounds.simulator.stop().await?;
    report.print()
}

impl Rounds {
    async fn measure(&self, arguments: &Arguments) -> Result<Report> {
        let (place, db, refunds) = (&self.place, &self.db, arguments.refunds);
        let all = refunds + ONE_BY_ONE;
        let machine = self.machine().await?;

        say("payments: writing the file, adding the transfers to the simulator, importing");
        simulator::add_transfers(place, all, program::transfer_id).await?;
        let import = self.import(all).await?;

        say("intake");
        let serve = program::start(place, "serve").await?;
        let serve_start = Memory::of(serve.pid)?;
        let intake = self.intake(&serve, refunds).await?;
        let serve_after_intake = Memory::of(serve.pid)?;

        say("drain");
        let before = self.begin(&[&serve]).await?;
        let mut worker = program::start(place, "worker").await?;
        let worker_start = Memory::of(worker.pid)?;
        let drain = drain::watch(db, "reversals", refunds, &mut worker).await?;
        let drain = Measured { drain, cost: self.snapshot(&[&serve, &worker]).await?.since(&before, refunds) };
        let worker_after_drain = Memory::of(worker.pid)?;

        say("latency");
        let latency = latency::measure(place, db, refunds..all).await?;
        let memory_mb = BTreeMap::from([
            ("serve", memory(serve_start, serve_after_intake, &serve)?),
            ("worker", memory(worker_start, worker_after_drain, &worker)?),
        ]);
        worker.stop().await?;
        serve.stop().await?;
        self.check_ledger(all).await?;
        simulator::check_reversed_once(place, all, program::transfer_id).await?;

        say("bare");
        let mut others = BTreeMap::from([("bare", self.bare(refunds).await?)]);
        for peer in PEERS.into_iter().filter(|_| arguments.peers) {
            say(peer.name);
            others.insert(peer.name, self.peer(peer, arguments.peer_jobs).await?);
        }
        Ok(Report { refunds, machine, import, intake, drain, latency, memory_mb, others })
    }

    async fn import(&self, payments: u32) -> Result<Import> {
        let file = program::write_payments(&self.place, payments)?.display().to_string();
        let run = async |name, arguments: &[&str]| {
            Child::start(&self.place, name, &mut program::clawback(&self.place, arguments)?)?.finish().await
        };
        run("migrate", &["migrate", "up"]).await?;
        let before = self.begin(&[]).await?;
        let started = Instant::now();
        run("import", &["payments", "import", &file]).await?;
        let seconds = started.elapsed().as_secs_f64();
        let cost = self.snapshot(&[]).await?.since(&before, payments);
        // As in a database that has been in use. Not the tables that are still empty: PostgreSQL would take them for small, and keep
        // scanning them as a whole while they grow.
        query("ANALYZE payments, seller_transfers").execute(&self.db).await?;
        Ok(Import { payments, payments_per_second: f64::from(payments) / seconds, cost })
    }

    /// The cost includes the relay's work, until all jobs are on the queue.
    async fn intake(&self, serve: &Child, refunds: u32) -> Result<Intakes> {
        let before = self.begin(&[serve]).await?;
        webhooks::send(&self.place, 0..WARM_UP, 4).await?;
        let mut rounds = Vec::new();
        for (connections, payments) in split(refunds) {
            rounds.push(webhooks::send(&self.place, payments, connections).await?);
        }
        let answered = Instant::now();
        backlog::wait_for(&self.place, refunds).await?;
        let published_after_seconds = answered.elapsed().as_secs_f64();
        let cost = self.snapshot(&[serve]).await?.since(&before, refunds);
        Ok(Intakes { rounds, published_after_seconds, cost })
    }

    async fn bare(&self, jobs: u32) -> Result<Measured> {
        let (place, db) = (&self.place, &self.db);
        simulator::add_transfers(place, jobs, bare::transfer_id).await?;
        bare::prepare(place, db, jobs).await?;
        let before = self.begin(&[]).await?;
        let mut worker = bare::start(place)?;
        let drain = drain::watch(db, bare::TABLE, jobs, &mut worker).await?;
        let cost = self.snapshot(&[&worker]).await?.since(&before, jobs);
        drop(worker);
        simulator::check_reversed_once(place, jobs, bare::transfer_id).await?;
        Ok(Measured { drain, cost })
    }

    async fn peer(&self, peer: Peer, jobs: u32) -> Result<Measured> {
        let (place, db) = (&self.place, &self.db);
        simulator::add_transfers(place, jobs, |number| peer.transfer_id(number)).await?;
        peer.prepare(place, db, jobs).await?;
        let before = self.begin(&[]).await?;
        let mut worker = peer.start(place)?;
        let drain = drain::watch(db, peer.table, jobs, &mut worker).await?;
        let cost = self.snapshot(&[&worker]).await?.since(&before, jobs);
        worker.stop().await?;
        simulator::check_reversed_once(place, jobs, |number| peer.transfer_id(number)).await?;
        Ok(Measured { drain, cost })
    }

    /// Before a phase: a checkpoint, so that none is paid for by another phase.
    async fn begin(&self, children: &[&Child]) -> Result<Snapshot> {
        query("CHECKPOINT").execute(&self.db).await?;
        self.snapshot(children).await
    }

    async fn snapshot(&self, children: &[&Child]) -> Result<Snapshot> {
        let place = &self.place;
        let mut processes = vec![
            ("postgres", place.postgres_pid),
            ("rabbitmq", place.broker_pid),
            (self.simulator.name, self.simulator.pid),
        ];
        processes.extend(children.iter().map(|child| (child.name, child.pid)));
        Snapshot::take(&self.db, &processes).await
    }

    async fn machine(&self) -> Result<Machine> {
        Ok(Machine {
            cores: thread::available_parallelism()?.get(),
            postgres: query_scalar("SELECT current_setting('server_version')").fetch_one(&self.db).await?,
            rabbitmq: backlog::broker_version(&self.place).await?,
        })
    }

    async fn check_ledger(&self, refunds: u32) -> Result<()> {
        for table in ["reversals", "seller_transfers"] {
            let reversed = database::count(&self.db, table, "reversed").await?;
            let all = database::count_all(&self.db, table).await?;
            ensure!(
                (reversed, all) == (refunds, refunds),
                "{table} must have {refunds} rows, all reversed (got {reversed} of {all})"
            );
        }
        Ok(())
    }
}

/// How many connections send which payments' refunds. Few with one connection, which is the slowest.
fn split(refunds: u32) -> [(u32, Range<u32>); 3] {
    let one = WARM_UP + (refunds / 20).min(2_000);
    let sixteen = one + (refunds - one) / 2;
    [(1, WARM_UP..one), (16, one..sixteen), (64, sixteen..refunds)]
}

fn memory(start: Memory, after_backlog: Memory, child: &Child) -> Result<report::Memory> {
    let end = Memory::of(child.pid)?;
    Ok(report::Memory {
        start: start.resident,
        after_backlog: after_backlog.resident,
        peak: end.peak,
        end: end.resident,
    })
}

fn say(what: &str) {
    println!("── {what}");
}
