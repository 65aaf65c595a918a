//! The database: connections, transactions, group commit, set statements, migrations.

mod batch;
pub(super) mod migrate;
mod pools;
pub(in crate::ledger) mod rowset;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode,
    SqlxError, Statement, TransactionOptions, TransactionTrait,
};
use serde_json::json;
use tokio::sync::{Notify, OnceCell, watch};

pub(super) use batch::{Batcher, Change, is_of_a_change};
pub(super) use pools::{Purpose, connect, connect_for};

use super::claims::ClaimPolicy;
use super::schema::{claim, outbox};
use super::status::CallKind;

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
    /// Committed jobs on their way to the relay of this process.
    pub(super) handoff: Arc<::outbox::Handoff<outbox::Model>>,
    pub(super) graces: Graces,
    pub(super) claims: ClaimPolicy,
    /// Whether another system is told what happens.
    pub(super) notifies: bool,
    /// Read once.
    pub(super) set_up_at: Arc<OnceCell<DateTime<Utc>>>,
    /// Counts the pauses that this process has ended.
    pub(super) resumed: watch::Sender<u64>,
    /// Wakes who works on operations.
    pub(super) operation_running: Arc<Notify>,
    /// Wakes who drops parked messages that have nothing more to say.
    pub(super) messages_superseded: Arc<Notify>,
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
    /// Whether changes can be made now. Takes the database's time.
    pub(super) async fn ping(&self) -> Result<(), DbErr> {
        if self.writer.get_database_backend() != DbBackend::Postgres {
            return self.db.ping().await;
        }
        if pools::look(&self.writer).await? {
            self.drop_idle_connections().await;
            return Err(DbErr::Custom("the database is read-only".to_owned()));
        }
        Ok(())
    }

    /// Has new connections made as `url` says by now; those that are there stay. On SQLite it does nothing.
    ///
    /// # Errors
    /// When `url` can't be used. The text does not show it.
    pub(super) fn reconnect_by(&self, url: &str) -> Result<(), DbErr> {
        if self.writer.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let unusable = |_| DbErr::Custom("it must be a URL that starts with postgres:".to_owned());
        let options: PgConnectOptions = url.parse().map_err(unusable)?;
        let options = options.disable_statement_logging();
        let pools = [
            (Purpose::Reading, &self.db),
            (Purpose::Changes, &self.writer),
            (Purpose::Lists, &self.reader),
            (Purpose::Relay, &self.relay_db),
        ];
        for (purpose, pool) in pools {
            pool.get_postgres_connection_pool().set_connect_options(purpose.session(options.clone()));
        }
        Ok(())
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

/// SQLSTATE of PostgreSQL, class "invalid authorization specification": wrong password, unknown role, no permission to connect.
const REFUSED: &str = "28";

/// Whether the database refuses our credentials.
pub(super) fn is_refusal(error: &DbErr) -> bool {
    matches!(sqlx_error(error), Some(SqlxError::Database(error)) if error.code().is_some_and(|code| code.starts_with(REFUSED)))
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

/// When this ledger was first set up: its oldest migration's time.
async fn set_up_at(txn: &DatabaseTransaction) -> Result<DateTime<Utc>, DbErr> {
    let sql = "SELECT MIN(applied_at) AS at FROM seaql_migrations";
    let row = txn.query_one_raw(Statement::from_string(txn.get_database_backend(), sql)).await?;
    let seconds = row.map(|row| row.try_get::<Option<i64>>("", "at")).transpose()?.flatten();
    let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.ok_or_else(|| DbErr::RecordNotFound("the time of the oldest migration".to_owned()))
}
