//! The pools of connections: how many of which kind, and what each session is told at its start.

use std::time::Duration;

use chrono::Utc;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement};

use crate::ledger::time::set_clock;

/// The relay publishes one batch at a time, and listens.
const RELAY_CONNECTIONS: u32 = 3;
/// Lists and figures for people: never so many at a time that they slow down what moves money.
const MOST_READER_CONNECTIONS: u32 = 4;
/// PostgreSQL gives up on a list or a figure that takes longer.
const READER_TIME_LIMIT: (&str, &str) = ("statement_timeout", "10s");
/// One process of PostgreSQL's for each of them.
const NOT_PARALLEL: (&str, &str) = ("max_parallel_workers_per_gather", "0");
/// Batches and what looks rows up for them: few transactions at a time, whatever waits for them.
pub(super) const MOST_WRITER_CONNECTIONS: u32 = 8;
/// A connection that lay idle for so long is tried out before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// PostgreSQL keeps the plan of a prepared statement. One made while a table is empty reads the whole table for ever after,
/// unless told that every statement goes by an index.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")];
/// A session without it lacks the others, too.
const LOCK_TIMEOUT: (&str, &str) = ("lock_timeout", "10s");
/// What hangs ends by itself: nobody waits for a lock, a statement, or a process that was suspended or cut off, without end.
const LIMITS: [(&str, &str); 7] = [
    // Compiling a plan takes longer than any statement here, and a plan that must scan although scans are off counts as costly.
    ("jit", "off"),
    LOCK_TIMEOUT,
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];
/// Who waits for a lock must then see what its holder committed, whatever the database's default is.
const READ_COMMITTED: (&str, &str) = ("default_transaction_isolation", "read committed");

/// What a pool's connections are for, which decides how many there are and how PostgreSQL treats them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Purpose {
    /// What is neither of the others. On SQLite these are all.
    Reading,
    Changes,
    /// Lists and figures.
    Lists,
    Relay,
}

impl Purpose {
    fn connections(self, most: u32) -> u32 {
        let shares = Shares::of(most);
        match self {
            Self::Reading => shares.others,
            Self::Changes => shares.writers,
            Self::Lists => shares.readers,
            Self::Relay => RELAY_CONNECTIONS,
        }
    }

    /// Settings of its sessions beside those of all.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Reading | Self::Changes => &[],
            Self::Lists => &[READER_TIME_LIMIT, NOT_PARALLEL],
            // That a job is claimed or published is found out again after a power cut, by publishing it once more.
            Self::Relay => &[("synchronous_commit", "off")],
        }
    }

    pub(super) fn session(self, postgres: PgConnectOptions) -> PgConnectOptions {
        // Of two with one name the later one counts.
        postgres.options(LIMITS).options(BY_INDEX).options([READ_COMMITTED]).options(self.settings().iter().copied())
    }
}

/// Connects to `url`, and makes sure that it can be worked on.
///
/// # Errors
/// When the database can't be reached, or something between drops what sessions need. The error's text does not contain the
/// password.
pub(in crate::ledger) async fn connect(url: &str, max_connections: u32) -> Result<DatabaseConnection, DbErr> {
    if url.starts_with("sqlite:") {
        return open(options(url, max_connections)).await;
    }
    let mut options = options(url, Purpose::Reading.connections(max_connections));
    options.map_sqlx_postgres_opts(|postgres| Purpose::Reading.session(postgres));
    let db = open(options).await.map_err(named)?;
    look(&db).await?;
    Ok(db)
}

/// Connects for `purpose`, on demand. `db` is a connection to the same database, and serves on SQLite.
pub(in crate::ledger) async fn connect_for(
    purpose: Purpose,
    url: &str,
    db: &DatabaseConnection,
    max_connections: u32,
) -> Result<DatabaseConnection, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres && purpose != Purpose::Relay {
        return Ok(db.clone());
    }
    let mut options = options(url, purpose.connections(max_connections));
    options.connect_lazy(true).map_sqlx_postgres_opts(move |postgres| purpose.session(postgres));
    if matches!(purpose, Purpose::Changes | Purpose::Relay) {
        options.test_before_acquire_if_idle_for(IDLE);
    }
    open(options).await
}

/// Whether PostgreSQL takes no changes. Takes its time for the ledger's.
///
/// # Errors
/// Also when the session lacks its settings.
pub(super) async fn look(db: &DatabaseConnection) -> Result<bool, DbErr> {
    let asked = Utc::now();
    let sql =
        "SELECT current_setting('transaction_read_only') AS read_only, current_setting('lock_timeout') AS lock_timeout,
        clock_timestamp() AS now";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the database's settings".to_owned()))?;
    set_clock(row.try_get("", "now")?, asked);
    let (name, wanted) = LOCK_TIMEOUT;
    let got: String = row.try_get("", name)?;
    if got != wanted {
        return Err(DbErr::Custom(format!("{name} must be {wanted} in our sessions (got {got}); {NO_POOLER}")));
    }
    Ok(row.try_get::<String>("", "read_only")? == "on")
}

const NO_POOLER: &str = "a connection pooler like PgBouncer in between drops what sessions need (settings, prepared statements, \
    LISTEN): DATABASE_URL must name PostgreSQL itself";

/// A pooler's refusal of our settings, with what to do.
fn named(error: DbErr) -> DbErr {
    let text = error.to_string();
    if text.contains("unsupported startup parameter") { DbErr::Custom(format!("{text}; {NO_POOLER}")) } else { error }
}

/// Who gets how many of the connections, beside the relay.
struct Shares {
    writers: u32,
    readers: u32,
    others: u32,
}

impl Shares {
    fn of(max_connections: u32) -> Self {
        let left = max_connections.saturating_sub(RELAY_CONNECTIONS);
        let writers = (left / 2).clamp(1, MOST_WRITER_CONNECTIONS);
        let readers = (left.saturating_sub(writers) / 2).clamp(1, MOST_READER_CONNECTIONS);
        Self { writers, readers, others: left.saturating_sub(writers + readers).max(1) }
    }
}

/// On the heap: whoever connects may do so several times over.
async fn open(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    Box::pin(Database::connect(options)).await
}

fn options(url: &str, max_connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.to_owned());
    options
        .sqlx_logging(false)
        .max_connections(max_connections)
        .connect_timeout(Duration::from_secs(5))
        .acquire_timeout(Duration::from_secs(5))
        // A write-ahead log lets readers and one writer work side by side. FULL: a commit that was answered survives
        // a power cut.
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(10))
        });
    options
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn every_session_ends_what_hangs_and_goes_by_an_index() {
        for purpose in [Purpose::Reading, Purpose::Changes, Purpose::Lists, Purpose::Relay] {
            let session = purpose.session(PgConnectOptions::new_without_pgpass());
            let options = session.get_options().unwrap().to_owned();
            for setting in [
                "lock_timeout=10s",
                "idle_in_transaction_session_timeout=60s",
                "tcp_keepalives_idle=30",
                "enable_seqscan=off",
            ] {
                assert!(options.contains(setting), "{purpose:?} lacks {setting}: {options}");
            }
            // Of two with one name the later one counts.
            let limit = options.rsplit("statement_timeout=").next().unwrap().split(' ').next().unwrap();
            assert_eq!(limit, if purpose == Purpose::Lists { "10s" } else { "30s" }, "{options}");
        }
    }
}
