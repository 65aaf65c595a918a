//! What a phase costs: CPU time from /proc, statements and write-ahead log from PostgreSQL.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use sea_orm::sqlx::{PgPool, query_as, query_scalar};
use serde::Serialize;

use crate::database::MEASURED;

/// Linux counts CPU time in 1/100 s for programs, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Counters at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    cpu_seconds: BTreeMap<&'static str, f64>,
    /// Of all cores and everything that runs on them.
    busy_seconds: f64,
    statements: i64,
    wal_bytes: i64,
}

/// What one job, or payment, or webhook cost.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) cpu_ms: BTreeMap<&'static str, f64>,
    pub(crate) statements: f64,
    pub(crate) wal_bytes: f64,
}

impl Snapshot {
    /// Of the named processes, each with all its descendants, of this process alone (`bench`), and of the database.
    ///
    /// # Errors
    /// When a process is gone, or PostgreSQL has lost counts.
    pub(crate) async fn take(db: &PgPool, processes: &[(&'static str, u32)]) -> Result<Self> {
        let (forgotten,): (i64,) = query_as("SELECT dealloc FROM pg_stat_statements_info").fetch_one(db).await?;
        ensure!(
            forgotten == 0,
            "pg_stat_statements has forgotten {forgotten} statements: raise pg_stat_statements.max"
        );
        let statements = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid \
                          WHERE r.rolname = $1";
        let wal = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
        Ok(Self {
            statements: query_scalar(statements).bind(MEASURED).fetch_one(db).await?,
            wal_bytes: query_scalar(wal).fetch_one(db).await?,
            cpu_seconds: cpu_seconds(processes)?,
            busy_seconds: busy_seconds()?,
        })
    }

    /// What each of `count` cost since `earlier`, which may lack processes: they began later.
    pub(crate) fn since(&self, earlier: &Self, count: u32) -> Cost {
        let count = f64::from(count);
        let before = |name| earlier.cpu_seconds.get(name).copied().unwrap_or_default();
        let mut seconds: BTreeMap<_, _> =
            self.cpu_seconds.iter().map(|(name, now)| (*name, now - before(name))).collect();
        let known: f64 = seconds.values().sum();
        seconds.insert("anything else", (self.busy_seconds - earlier.busy_seconds - known).max(0.0));
        Cost {
            cpu_ms: seconds.into_iter().map(|(name, seconds)| (name, seconds * 1000.0 / count)).collect(),
            statements: (self.statements - earlier.statements) as f64 / count,
            wal_bytes: (self.wal_bytes - earlier.wal_bytes) as f64 / count,
        }
    }
}

/// CPU time of each process together with its living descendants and those that it has waited for.
fn cpu_seconds(roots: &[(&'static str, u32)]) -> Result<BTreeMap<&'static str, f64>> {
    let mut processes = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("CPU time is read from /proc, which Linux has")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended in the meantime is counted by its parent.
        if let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(parse_stat) {
            processes.insert(pid, stat);
        }
    }
    let belongs = |mut pid: u32, root: u32| loop {
        match processes.get(&pid) {
            _ if pid == root => return true,
            Some((parent, _)) if *parent > 1 => pid = *parent,
            _ => return false,
        }
    };
    let mut seconds = BTreeMap::from([("bench", own_seconds()?)]);
    for (name, root) in roots {
        ensure!(processes.contains_key(root), "{name} (process {root}) is gone");
        let ticks: u64 = processes.iter().filter(|(pid, _)| belongs(**pid, *root)).map(|(_, (_, ticks))| ticks).sum();
        seconds.insert(*name, ticks as f64 / TICKS_PER_SECOND);
    }
    Ok(seconds)
}

/// From the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    ensure!(ticks.len() == 8, "/proc/stat must begin with eight numbers (got {})", ticks.len());
    Ok((ticks.iter().sum::<f64>() - ticks[3] - ticks[4]) / TICKS_PER_SECOND)
}

/// Of this process without its children, which are counted by their own names.
fn own_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = ticks(&stat).context("/proc/self/stat must have the fields of proc_pid_stat(5)")?;
    Ok((fields[0] + fields[1]) as f64 / TICKS_PER_SECOND)
}

/// The parent, and the ticks of the process and of the children that it has waited for. Fields: proc_pid_stat(5).
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    // The second field is the name in parentheses, which may hold anything.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
    Some((parent.parse().ok()?, ticks(stat)?.iter().sum()))
}

/// In user and kernel mode, then the same of the children that were waited for.
fn ticks(stat: &str) -> Option<[u64; 4]> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let ticks: Option<Vec<u64>> = fields.map(|ticks| ticks.parse().ok()).collect();
    ticks?.try_into().ok()
}

/// Resident memory of a process, in MB.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) peak: f64,
}

impl Memory {
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes =
                line.and_then(|line| line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok());
            kilobytes
                .map(|kilobytes| kilobytes * 1.024 / 1000.0)
                .with_context(|| format!("/proc/{pid}/status lacks {name}"))
        };
        Ok(Self { resident: megabytes("VmRSS")?, peak: megabytes("VmHWM")? })
    }
}
