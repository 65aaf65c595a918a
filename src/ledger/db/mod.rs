//! The database: connections, transactions, group commit, set statements, migrations.

mod batch;
pub(in crate::ledger) mod rowset;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clawback_migrations::{Migrator, MigratorTrait};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr,
    SqliteTransactionMode, SqlxError, Statement, TransactionOptions, TransactionTrait,
};
use serde_json::json;
use tokio::sync::{OnceCell, watch};

pub(super) use batch::{Batcher, Change};

use super::LedgerError;
use super::claims::ClaimPolicy;
use super::outbox::Handoff;
use super::schema::{claim, outbox};
use super::status::CallKind;

/// The relay publishes one batch at a time, and listens.
const RELAY_CONNECTIONS: u32 = 3;
/// Lists and figures for people: never so many at a time that they slow down what moves money.
const MOST_READER_CONNECTIONS: u32 = 4;
/// PostgreSQL gives up on a list or a figure that takes longer.
const READER_TIME_LIMIT: (&str, &str) = ("statement_timeout", "10s");
/// One process of PostgreSQL's for each of them.
const NOT_PARALLEL: (&str, &str) = ("max_parallel_workers_per_gather", "0");
/// Batches and what looks rows up for them: few transactions at a time, whatever waits for them.
const MOST_WRITER_CONNECTIONS: u32 = 8;
/// A connection that lay idle for so long is tried out before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// PostgreSQL keeps the plan of a prepared statement. One made while a table is empty reads the whole table for ever after,
/// unless told that every statement goes by an index.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")];
/// What hangs ends by itself: nobody waits for a lock, a statement, or a process that was suspended or cut off, without end.
const LIMITS: [(&str, &str); 7] = [
    // Compiling a plan takes longer than any statement here, and a plan that must scan although scans are off counts as costly.
    ("jit", "off"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];
/// Who waits for a lock must then see what its holder committed, whatever the database's default is.
const READ_COMMITTED: (&str, &str) = ("default_transaction_isolation", "read committed");
/// Serializes migrations that several processes start at once. Any number that nothing else uses.
const MIGRATION_LOCK: i64 = 0x0c1a_3bac;

/// The connections, and what every change of the ledger needs beside them. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// For reading.
    pub(super) db: DatabaseConnection,
    /// For transactions and for what looks rows up by their keys. On SQLite the same.
    pub(super) writer: DatabaseConnection,
    /// For lists and figures, each of which has an index. On SQLite the same as `db`.
    pub(super) reader: DatabaseConnection,
    pub(super) relay_db: DatabaseConnection,
    pub(super) handoff: Arc<Handoff>,
    pub(super) graces: Graces,
    pub(super) claims: ClaimPolicy,
    /// Whether another system is told what happens.
    pub(super) notifies: bool,
    /// Read once.
    pub(super) set_up_at: Arc<OnceCell<DateTime<Utc>>>,
    /// Counts the pauses that this process has ended.
    pub(super) resumed: watch::Sender<u64>,
}

/// How long after its due time a call may be without news before the sweeper suspects a lost job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Graces {
    pub(super) reverse: Duration,
    pub(super) create: Duration,
}

impl Graces {
    pub(super) fn of(&self, kind: CallKind) -> Duration {
        match kind {
            CallKind::Reverse | CallKind::LookUp | CallKind::Notify => self.reverse,
            CallKind::Create => self.create,
        }
    }
}

impl Store {
    pub(super) async fn begin(&self) -> Result<DatabaseTransaction, LedgerError> {
        // A connection that broke since it was used last says so here, and the pool drops it.
        for _ in 0..MOST_WRITER_CONNECTIONS {
            match begin(&self.writer).await {
                Err(error) if is_broken(&error) => {}
                begun => return Ok(begun?),
            }
        }
        Ok(begin(&self.writer).await?)
    }

    /// Whether changes can be made now.
    pub(super) async fn ping(&self) -> Result<(), DbErr> {
        if self.writer.get_database_backend() != DbBackend::Postgres {
            return self.db.ping().await;
        }
        let sql = "SELECT current_setting('transaction_read_only') AS read_only";
        let row = self.writer.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
        match row.map(|row| row.try_get::<String>("", "read_only")).transpose()?.as_deref() {
            Some("on") => {
                self.drop_idle_connections().await;
                Err(DbErr::Custom("the database is read-only".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// A session that began on a database that takes no changes stays so, whatever the database is by now.
    pub(super) async fn drop_idle_connections(&self) {
        if self.writer.get_database_backend() == DbBackend::Postgres {
            for pool in [&self.writer, &self.relay_db].map(DatabaseConnection::get_postgres_connection_pool) {
                while let Some(connection) = pool.try_acquire() {
                    let _ = connection.close().await;
                }
            }
        }
    }

    /// The settings about claims, their default included.
    pub(super) async fn claim_policy(&self, txn: &DatabaseTransaction) -> Result<ClaimPolicy, DbErr> {
        let since = match self.claims.refunds_since {
            Some(since) => since,
            None => *self.set_up_at.get_or_try_init(|| set_up_at(txn)).await?,
        };
        Ok(ClaimPolicy { refunds_since: Some(since), ..self.claims })
    }

    /// Commits, and hands `jobs`, which were put into the outbox, to the relay.
    pub(super) async fn commit(&self, txn: DatabaseTransaction, jobs: Vec<outbox::Model>) -> Result<(), LedgerError> {
        txn.commit().await?;
        self.handoff.hand(jobs);
        Ok(())
    }
}

/// Connects to `url`.
///
/// # Errors
/// When the database can't be reached. The error's text does not contain the password.
pub(super) async fn connect(url: &str, max_connections: u32) -> Result<DatabaseConnection, DbErr> {
    // On SQLite these are all.
    let connections = if url.starts_with("sqlite:") { max_connections } else { Shares::of(max_connections).others };
    let mut options = options(url, connections);
    options.map_sqlx_postgres_opts(|postgres| postgres.options(LIMITS));
    open(options).await
}

/// Connects for changes, on demand: `db`, to the same database, is not for them.
pub(super) async fn connect_writer(
    url: &str,
    db: &DatabaseConnection,
    max_connections: u32,
) -> Result<DatabaseConnection, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(db.clone());
    }
    let mut options = on_demand(url, Shares::of(max_connections).writers, &[]);
    options.test_before_acquire_if_idle_for(IDLE);
    open(options).await
}

/// Connects for lists and figures, on demand.
pub(super) async fn connect_reader(
    url: &str,
    db: &DatabaseConnection,
    max_connections: u32,
) -> Result<DatabaseConnection, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(db.clone());
    }
    open(on_demand(url, Shares::of(max_connections).readers, &[READER_TIME_LIMIT, NOT_PARALLEL])).await
}

/// Options of a pool that connects when it is first used, and whose sessions go by index and see what was committed. `also` are
/// settings of its sessions; a later one wins.
fn on_demand(url: &str, connections: u32, also: &'static [(&'static str, &'static str)]) -> ConnectOptions {
    let mut options = options(url, connections);
    options.connect_lazy(true).map_sqlx_postgres_opts(move |postgres| {
        postgres.options(LIMITS).options(BY_INDEX).options([READ_COMMITTED]).options(also.iter().copied())
    });
    options
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

/// Connects for the relay, on demand. On PostgreSQL its commits do not wait for the disk: that a job is claimed or published is
/// found out again after a power cut, by publishing it once more.
pub(super) async fn connect_relay(url: &str) -> Result<DatabaseConnection, DbErr> {
    let mut options = on_demand(url, RELAY_CONNECTIONS, &[("synchronous_commit", "off")]);
    options.test_before_acquire_if_idle_for(IDLE);
    open(options).await
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

/// Begins a transaction that will write.
///
/// On SQLite it takes the write lock at once: a transaction that reads first and asks for the lock later fails without
/// waiting when another writer came between.
pub(crate) async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    db.begin_with_options(TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    })
    .await
}

/// Holds off every other transaction that names one of these payments, or of those of the claims with these references,
/// until this one ends, also before the payments' rows exist. Adds the latter to `names`. On SQLite there is one writer
/// anyway.
pub(super) async fn lock_payments(
    txn: &DatabaseTransaction,
    names: &mut BTreeSet<String>,
    claim_refs: &[&str],
) -> Result<(), DbErr> {
    if names.is_empty() && claim_refs.is_empty() {
        return Ok(());
    }
    if txn.get_database_backend() != DbBackend::Postgres {
        let known = rowset::select::<_, claim::Model>(txn, "reference IN {texts}", &[], claim_refs).await?;
        names.extend(known.iter().flat_map(claim::Model::names).map(ToOwned::to_owned));
        return Ok(());
    }
    // In the order of the locks themselves: two transactions never wait for each other.
    let lock = "WITH known AS (SELECT payment_ref, charge_ref FROM claims
            WHERE reference = ANY (ARRAY(SELECT jsonb_array_elements_text($2::jsonb)))),
        names AS MATERIALIZED (SELECT jsonb_array_elements_text($1::jsonb) AS name
            UNION SELECT payment_ref FROM known UNION SELECT charge_ref FROM known WHERE charge_ref IS NOT NULL),
        keys AS (SELECT DISTINCT hashtextextended(name, 0) AS key FROM names ORDER BY key)
        SELECT (SELECT count(pg_advisory_xact_lock(key)) FROM keys) AS locks, (SELECT jsonb_agg(name) FROM names) AS names";
    let values = [json!(names).to_string().into(), json!(claim_refs).to_string().into()];
    let row = txn.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, lock, values)).await?;
    if let Some(row) = row {
        names.extend(rowset::json_rows::<String>(&row, "names")?);
    }
    Ok(())
}

/// SQLSTATE of PostgreSQL: `admin_shutdown`, `crash_shutdown`, `idle_in_transaction_session_timeout`.
const ENDED: [&str; 3] = ["57P01", "57P02", "25P03"];
/// SQLSTATE of PostgreSQL: `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// Whether the connection is lost. What was begun on it may have happened or not.
fn is_broken(error: &DbErr) -> bool {
    match sqlx_error(error) {
        Some(SqlxError::Io(_) | SqlxError::Tls(_) | SqlxError::Protocol(_)) => true,
        Some(SqlxError::Database(error)) => error.code().is_some_and(|code| ENDED.contains(&code.as_ref())),
        _ => false,
    }
}

/// Whether the database takes no changes.
pub(super) fn is_read_only(error: &DbErr) -> bool {
    matches!(sqlx_error(error), Some(SqlxError::Database(error)) if error.code().as_deref() == Some(READ_ONLY))
}

/// What the database's driver said.
fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// Applies all pending migrations, and returns how many there were. Safe to run from several processes at once.
pub(crate) async fn migrate_up(db: &DatabaseConnection) -> Result<usize, DbErr> {
    if pending_migrations(db).await? == 0 {
        return Ok(0);
    }
    let txn = begin_migration(db).await?;
    let pending = Migrator::get_pending_migrations(&txn).await?.len();
    Migrator::up(&txn, None).await?;
    txn.commit().await?;
    Ok(pending)
}

/// Takes back the newest `steps` migrations, with the data in their tables.
pub(crate) async fn migrate_down(db: &DatabaseConnection, steps: u32) -> Result<(), DbErr> {
    let txn = begin_migration(db).await?;
    Migrator::down(&txn, Some(steps)).await?;
    txn.commit().await
}

async fn begin_migration(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let txn = begin(db).await?;
    if txn.get_database_backend() == DbBackend::Postgres {
        // Another process may be migrating, and an index takes its time; but nobody shall queue behind a table that is in use.
        txn.execute_unprepared("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
        let lock = "SELECT pg_advisory_xact_lock($1)";
        txn.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, lock, [MIGRATION_LOCK.into()])).await?;
        txn.execute_unprepared("SET LOCAL lock_timeout = '10s'").await?;
    }
    Ok(txn)
}

/// How many migrations are still to be applied. Changes nothing.
pub(crate) async fn pending_migrations(db: &DatabaseConnection) -> Result<usize, DbErr> {
    Ok(Migrator::get_pending_migrations_read_only(db).await?.len())
}

/// When this ledger was first set up: its oldest migration's time.
async fn set_up_at(txn: &DatabaseTransaction) -> Result<DateTime<Utc>, DbErr> {
    let sql = "SELECT MIN(applied_at) AS at FROM seaql_migrations";
    let row = txn.query_one_raw(Statement::from_string(txn.get_database_backend(), sql)).await?;
    let seconds = row.map(|row| row.try_get::<Option<i64>>("", "at")).transpose()?.flatten();
    let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.ok_or_else(|| DbErr::RecordNotFound("the time of the oldest migration".to_owned()))
}

/// Every migration's name, and whether it is applied. Changes nothing.
pub(crate) async fn migration_status(db: &DatabaseConnection) -> Result<Vec<(String, bool)>, DbErr> {
    let migrations = Migrator::get_migration_with_status_read_only(db).await?;
    Ok(migrations
        .iter()
        .map(|m| (m.name().to_owned(), m.status() == clawback_migrations::migrator::MigrationStatus::Applied))
        .collect())
}
