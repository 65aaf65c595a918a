//! Who is alive: each running process keeps a row, and learns from it what operators ask for: a probe, or work on an operation.

use std::sync::PoisonError;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::book::{Book, Reads};
use super::db::Change;
use super::history::Note;
use super::read::Query;
use super::{Ledger, LedgerError, now};

/// A process that has not been seen for longer is not alive.
const ALIVE: TimeDelta = TimeDelta::seconds(15);
/// One that did not say goodbye is shown for so long.
const REMEMBERED: TimeDelta = TimeDelta::hours(1);

words! {
    /// What a process runs.
    pub enum ProcessRole {
        /// Everything (`clawback run`).
        Run,
        /// HTTP, relay and sweeper (`clawback serve`).
        Serve,
        /// The consumers of jobs (`clawback worker`).
        Worker,
    }
}

words! {
    /// Whether a worker calls Stripe.
    pub enum BreakerState {
        /// It does.
        Closed,
        /// Stripe answers a probe: one job at a time shows whether it takes calls.
        HalfOpen,
        /// It does not: it takes no jobs, and probes Stripe.
        Open,
    }
}

/// A running process, as it tells of itself.
#[derive(Clone, Debug, PartialEq, FromQueryResult, Serialize, ToSchema)]
pub struct Process {
    /// Made anew at each start.
    pub id: Uuid,
    /// What it runs.
    pub role: ProcessRole,
    /// Clawback's version.
    #[schema(examples("0.2.0"))]
    pub version: String,
    /// The machine's name.
    #[schema(examples("worker-1"))]
    pub host: String,
    /// Its process id on that machine.
    pub pid: i64,
    /// Its circuit breaker; null in a process without a worker.
    pub breaker: Option<BreakerState>,
    /// Since when Stripe can't be used: the beginning of the outage.
    pub outage_since: Option<DateTime<Utc>>,
    /// Why, in words.
    pub outage_reason: Option<String>,
    /// Stripe's id of the transfer, or of what else, at whose call that was noticed last.
    pub outage_about: Option<String>,
    /// When Stripe is probed next.
    pub next_probe_at: Option<DateTime<Utc>>,
    /// How many calls its limiter lets through in a second; null in a process without a worker.
    pub calls_per_second: Option<f64>,
    /// Of how many queues it takes jobs.
    pub consumers: i32,
    /// How many of these consumers are connected to the broker.
    pub connected: i32,
    /// Jobs that run in it.
    pub jobs_running: i32,
    /// When it last took a job.
    pub last_delivery_at: Option<DateTime<Utc>>,
    /// Webhooks that it has refused since its start: their signatures did not fit.
    pub webhooks_refused: i64,
    /// When it refused the last one.
    pub webhook_refused_at: Option<DateTime<Utc>>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub seen_at: DateTime<Utc>,
}

/// Webhooks that this process has refused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    webhooks: i64,
    last_at: Option<DateTime<Utc>>,
}

/// The processes that are alive, and those that went without a goodbye.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processes {
    /// Heard of in the last seconds.
    pub alive: Vec<Process>,
    /// Not heard of for a while, though they did not say that they stop.
    pub missing: Vec<Process>,
}

impl Processes {
    /// Those alive that call Stripe.
    pub fn workers(&self) -> impl Iterator<Item = &Process> {
        self.alive.iter().filter(|process| process.breaker.is_some())
    }

    /// The outage that began first, as a worker tells of it: no worker can be sure that another one is wrong.
    #[must_use]
    pub fn outage(&self) -> Option<&Process> {
        self.workers().filter(|process| process.outage_since.is_some()).min_by_key(|process| process.outage_since)
    }
}

impl Ledger {
    /// Says that `process` is alive, and as it is. Returns when an operator last asked it to probe Stripe. Wakes who waits in
    /// [`Self::operation_running`].
    pub async fn beat(&self, process: &Process) -> Result<Option<DateTime<Utc>>, LedgerError> {
        let db = &self.store.db;
        let mut query = Query::new(db);
        let (of, refused) = (process.clone(), self.refused());
        let fixed = [
            ("id", query.bind(of.id)),
            ("role", query.bind(of.role.to_string())),
            ("version", query.bind(of.version)),
            ("host", query.bind(of.host)),
            ("pid", query.bind(of.pid)),
            ("started_at", query.bind(of.started_at)),
        ];
        let moving = [
            ("breaker", query.bind(of.breaker.map(|state| state.to_string()))),
            ("outage_since", query.bind(of.outage_since)),
            ("outage_reason", query.bind(of.outage_reason)),
            ("outage_about", query.bind(of.outage_about)),
            ("next_probe_at", query.bind(of.next_probe_at)),
            ("calls_per_second", query.bind(of.calls_per_second)),
            ("consumers", query.bind(of.consumers)),
            ("connected", query.bind(of.connected)),
            ("jobs_running", query.bind(of.jobs_running)),
            ("last_delivery_at", query.bind(of.last_delivery_at)),
            ("webhooks_refused", query.bind(refused.webhooks)),
            ("webhook_refused_at", query.bind(refused.last_at)),
            ("seen_at", query.clock()),
        ];
        let all = || fixed.iter().chain(&moving);
        let columns: Vec<&str> = all().map(|(column, _)| *column).collect();
        let values: Vec<&str> = all().map(|(_, value)| value.as_str()).collect();
        let set: Vec<String> = moving.iter().map(|(column, _)| format!("{column} = excluded.{column}")).collect();
        let sql = format!(
            "INSERT INTO processes ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {} RETURNING probe_asked_at,
                EXISTS (SELECT 1 FROM operations WHERE state = 'running') AS is_operating",
            columns.join(", "),
            values.join(", "),
            set.join(", ")
        );
        let rows = query.rows(db, sql).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if row.try_get("", "is_operating")? {
            self.store.operation_running.notify_one();
        }
        Ok(row.try_get("", "probe_asked_at")?)
    }

    /// Counts a webhook whose signature does not fit. Nothing else of it is kept: anybody can send one.
    pub fn refuse_webhook(&self) {
        let mut refused = self.figures.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = Refused { webhooks: refused.webhooks.saturating_add(1), last_at: Some(now()) };
    }

    fn refused(&self) -> Refused {
        *self.figures.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a process stops in order.
    pub async fn say_goodbye(&self, process: Uuid) -> Result<(), LedgerError> {
        let db = &self.store.db;
        let mut query = Query::new(db);
        let id = query.bind(process);
        query.rows(db, format!("DELETE FROM processes WHERE id = {id}")).await?;
        Ok(())
    }

    /// The processes on this database, oldest first.
    pub async fn processes(&self) -> Result<Processes, LedgerError> {
        let db = &self.store.db;
        let sql = "SELECT *, CURRENT_TIMESTAMP AS read_at FROM processes ORDER BY started_at, id".to_owned();
        let mut processes = Processes::default();
        for row in Query::new(db).rows(db, sql).await? {
            let (process, read_at): (Process, DateTime<Utc>) =
                (Process::from_query_result(&row, "")?, row.try_get("", "read_at")?);
            match read_at - process.seen_at {
                age if age <= ALIVE => processes.alive.push(process),
                age if age <= REMEMBERED => processes.missing.push(process),
                _ => {}
            }
        }
        Ok(processes)
    }

    /// Deletes the rows of processes that died long ago.
    pub async fn forget_processes(&self) -> Result<(), LedgerError> {
        let db = &self.store.relay_db;
        let mut query = Query::new(db);
        let before = query.bind(now() - REMEMBERED * 24);
        query.rows(db, format!("DELETE FROM processes WHERE seen_at < {before}")).await?;
        Ok(())
    }

    /// Has every live worker whose circuit breaker is open probe Stripe at once. Returns how many there are.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when there is none; [`LedgerError::Database`].
    pub async fn ask_for_probe(&self, note: &Note) -> Result<usize, LedgerError> {
        let processes = self.processes().await?;
        let is_open = |process: &&Process| process.breaker == Some(BreakerState::Open);
        let open: Vec<Uuid> = processes.workers().filter(is_open).map(|process| process.id).collect();
        if open.is_empty() {
            let problem = match processes.workers().next() {
                Some(_) => "no worker's circuit breaker is open: Stripe is called already",
                None => "no worker is alive that could probe Stripe; start `clawback worker`",
            };
            return Err(LedgerError::Conflict(problem.to_owned()));
        }
        self.store.apply(&Probe { processes: open.clone(), note: note.clone() }).await?;
        let db = &self.store.db;
        let mut query = Query::new(db);
        let (clock, among) = (query.clock(), query.among_ids("id", &open));
        query.rows(db, format!("UPDATE processes SET probe_asked_at = {clock} WHERE {among}")).await?;
        Ok(open.len())
    }
}

/// The history of a probe that was asked for.
#[derive(Debug)]
struct Probe {
    processes: Vec<Uuid>,
    note: Note,
}

impl Change for Probe {
    type Answer = ();

    fn reads(&self, _: &mut Reads) {}

    fn apply(&self, book: &mut Book) -> Result<(), LedgerError> {
        let note = self.note.because(format!("a probe of Stripe was asked for: {}", self.note.reason));
        self.processes.iter().for_each(|id| book.remark("process", *id, BreakerState::Open, &note));
        Ok(())
    }
}
