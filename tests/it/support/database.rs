//! A database of its own for each test, dropped at the end.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use clawback::ledger::Ledger;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, FromQueryResult, JsonValue, Statement,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::app::LEDGER_OPTIONS;
use super::required;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// In an order in which each may be filled.
const TABLES: [&str; 13] = [
    "seaql_migrations",
    "payments",
    "seller_transfers",
    "claims",
    "reversals",
    "calls",
    "lookups",
    "notifications",
    "operations",
    "operation_items",
    "webhook_events",
    "outbox",
    "history",
];

/// What a database had at one moment.
pub(crate) struct Backup {
    tables: Vec<String>,
}

/// A database without rows.
pub(crate) struct Db {
    pub(crate) url: String,
    pub(crate) backend: Backend,
    name: String,
    connection: OnceCell<DatabaseConnection>,
}

impl Db {
    /// A database without tables on SQLite, and with those of the schema on PostgreSQL, where making them takes long.
    pub(crate) async fn create(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::create_empty(backend).await,
            Backend::Postgres => {
                let admin = admin().await;
                Self::create_from(&admin, &template(&admin).await).await
            }
        }
    }

    /// A database without tables.
    pub(crate) async fn create_empty(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let name = new_name();
                let url = format!("sqlite://{}?mode=rwc", folder().join(format!("{name}.db")).display());
                Self { url, backend, name, connection: OnceCell::new() }
            }
            Backend::Postgres => Self::create_from(&admin().await, "template1").await,
        }
    }

    async fn create_from(admin: &DatabaseConnection, template: &str) -> Self {
        let name = new_name();
        admin.execute_unprepared(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        Self { url: url_of(&name), backend: Backend::Postgres, name, connection: OnceCell::new() }
    }

    /// One connection of the test's own, beside the application's.
    pub(crate) async fn connect(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(&self.url);
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await.unwrap()
    }

    /// A UUID as this database's SQL writes it.
    pub(crate) fn id(&self, id: &str) -> String {
        match self.backend {
            Backend::Sqlite => format!("x'{}'", id.replace('-', "")),
            Backend::Postgres => format!("'{id}'"),
        }
    }

    /// The connection that the test's own questions share.
    async fn shared(&self) -> &DatabaseConnection {
        self.connection.get_or_init(|| self.connect()).await
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.shared().await.execute_unprepared(sql).await.unwrap();
    }

    /// The rows of a query, as JSON objects.
    pub(crate) async fn query(&self, sql: &str) -> Vec<JsonValue> {
        rows(self.shared().await, sql).await
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        count(self.shared().await, from).await
    }

    /// Every table as of one moment, while others go on writing: what `pg_dump` takes.
    pub(crate) async fn back_up(&self) -> Backup {
        let connection = self.connect().await;
        connection.execute_unprepared("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
        let mut tables = Vec::new();
        for table in TABLES {
            let sql = format!("SELECT COALESCE(json_agg(t), '[]')::text AS rows FROM {table} t");
            let row =
                connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
            tables.push(row.try_get::<String>("", "rows").unwrap());
        }
        connection.close().await.unwrap();
        Backup { tables }
    }

    /// Drops the database, and makes it again from `backup`.
    pub(crate) async fn restore(&self, backup: &Backup) {
        self.drop_it().await;
        admin().await.execute_unprepared(&format!("CREATE DATABASE {}", self.name)).await.unwrap();
        let migrated = super::clawback(&["migrate", "up"], &super::settings(&[("DATABASE_URL", &self.url)])).await;
        assert_eq!(migrated.code, 0, "{migrated:?}");
        let connection = self.connect().await;
        connection.execute_unprepared("DELETE FROM seaql_migrations").await.unwrap();
        for (table, rows) in TABLES.iter().zip(&backup.tables) {
            let sql = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::json)");
            connection
                .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, [rows.into()]))
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
    }

    pub(crate) async fn drop_it(&self) {
        match self.backend {
            Backend::Sqlite => {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(folder().join(format!("{}.db{suffix}", self.name)));
                }
            }
            Backend::Postgres => {
                let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
                admin().await.execute_unprepared(&sql).await.unwrap();
            }
        }
    }
}

/// In memory where that is a folder: the tests kill processes, not machines.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// The rows of a query, as JSON objects.
pub(crate) async fn rows(connection: &DatabaseConnection, sql: &str) -> Vec<JsonValue> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    JsonValue::find_by_statement(statement).all(connection).await.unwrap()
}

pub(crate) async fn count(connection: &DatabaseConnection, from: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) AS n FROM {from}");
    let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await;
    row.unwrap().unwrap().try_get("", "n").unwrap()
}

fn new_name() -> String {
    format!("clawback_test_{}", Uuid::new_v4().simple())
}

/// PostgreSQL's URL of the database `name`.
fn url_of(name: &str) -> String {
    let mut url = url::Url::parse(&required("DATABASE_URL")).unwrap();
    url.set_path(name);
    url.to_string()
}

/// The database that others are copied from: one for each build of the tests, made by the first that needs it.
async fn template(admin: &DatabaseConnection) -> String {
    let built = std::env::current_exe().and_then(|program| program.metadata()?.modified()).unwrap();
    let name = format!("clawback_template_{}", built.duration_since(UNIX_EPOCH).unwrap().as_nanos());
    admin.execute_unprepared("SELECT pg_advisory_lock(1)").await.unwrap();
    if count(admin, &format!("pg_database WHERE datname = '{name}'")).await == 0 {
        let making = Db::create_from(admin, "template1").await;
        let ledger = Ledger::connect(&making.url, LEDGER_OPTIONS).await.unwrap();
        ledger.migrate_up().await.unwrap();
        ledger.close().await.unwrap();
        admin.execute_unprepared(&format!("ALTER DATABASE {} RENAME TO {name}", making.name)).await.unwrap();
    }
    admin.execute_unprepared("SELECT pg_advisory_unlock(1)").await.unwrap();
    name
}

/// One connection, so that it can hold a lock.
async fn admin() -> DatabaseConnection {
    let mut options = ConnectOptions::new(required("DATABASE_URL"));
    options.max_connections(1).sqlx_logging(false);
    let connection = Database::connect(options).await.expect("DATABASE_URL can't be reached");
    assert_eq!(connection.get_database_backend(), DbBackend::Postgres, "DATABASE_URL must be PostgreSQL's");
    connection
}
