//! A database of its own for each test. On PostgreSQL, where making one costs more than most tests, it is used again by the
//! next test, emptied.

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

/// All tables, in an order in which each may be filled: what is referred to first.
const TABLES: &str = "WITH RECURSIVE tables(id, depth) AS (
        SELECT oid, 0 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
        UNION SELECT conrelid, depth + 1 FROM tables JOIN pg_constraint ON contype = 'f' AND confrelid = id AND conrelid <> id)
    SELECT id::regclass::text AS name FROM tables GROUP BY id ORDER BY max(depth), name";

/// They have few rows whatever happens: one for each migration, process, pause or note of an operator's.
const SMALL_TABLES: [&str; 4] = ["seaql_migrations", "processes", "pauses", "group_notes"];

/// What a database had at one moment.
pub(crate) struct Backup {
    /// Their names, and their rows as JSON, in an order in which each may be filled.
    tables: Vec<(String, String)>,
}

/// A database without rows.
pub(crate) struct Db {
    pub(crate) url: String,
    pub(crate) backend: Backend,
    name: String,
    connection: OnceCell<DatabaseConnection>,
    /// Holds the lock on a database that the next test uses again.
    holder: Option<DatabaseConnection>,
}

impl Db {
    /// A database without tables on SQLite, and with those of the schema on PostgreSQL, where making them takes long.
    pub(crate) async fn create(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::create_empty(backend).await,
            Backend::Postgres => Self::borrow(admin().await).await,
        }
    }

    /// A database without tables.
    pub(crate) async fn create_empty(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let name = new_name();
                let url = format!("sqlite://{}?mode=rwc", folder().join(format!("{name}.db")).display());
                Self { url, backend, name, connection: OnceCell::new(), holder: None }
            }
            Backend::Postgres => {
                let name = new_name();
                admin().await.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
                Self::of_postgres(name, None)
            }
        }
    }

    /// The first database that no test uses now, as good as new. Whoever holds its lock may use it.
    async fn borrow(admin: DatabaseConnection) -> Self {
        let template = template(&admin).await;
        for number in 0.. {
            let name = format!("{template}_{number}");
            let lock = format!("(SELECT 1 WHERE pg_try_advisory_lock(hashtext('{name}'))) AS locked");
            if count(&admin, &lock).await == 0 {
                continue;
            }
            let known = Self::of_postgres(name.clone(), None);
            if known.is_emptied(&admin, &template).await {
                return Self { holder: Some(admin), ..known };
            }
            admin.execute_unprepared(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
            admin.execute_unprepared(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
            return Self::of_postgres(name, Some(admin));
        }
        unreachable!("there is always another number");
    }

    /// Ends what the test before has left connected, and empties the tables. False if there is no such database, or that test has
    /// changed its schema or its settings.
    async fn is_emptied(&self, admin: &DatabaseConnection, template: &str) -> bool {
        let this = format!("pg_database WHERE datname = '{}'", self.name);
        if count(admin, &this).await == 0 {
            return false;
        }
        let others = format!("pg_stat_activity WHERE datname = '{}'", self.name);
        count(admin, &format!("(SELECT pg_terminate_backend(pid, 5000) FROM {others}) AS ended")).await;
        let settings = format!("pg_db_role_setting WHERE setdatabase = (SELECT oid FROM {this})");
        let like_new = format!("{this} AND shobj_description(oid, 'pg_database') = '{}'", self.shape().await);
        let like_new = like_new.replace(&self.name, template);
        if count(admin, &settings).await > 0 || count(admin, &like_new).await == 0 {
            return false;
        }
        self.execute(
            "DO $$ BEGIN EXECUTE (SELECT 'TRUNCATE ' || string_agg(tablename, ', ') FROM pg_tables
             WHERE schemaname = 'public' AND tablename <> 'seaql_migrations'); END $$",
        )
        .await;
        self.query("SELECT pg_stat_reset()::text AS done").await;
        true
    }

    /// What a test may change of the schema.
    async fn shape(&self) -> String {
        let shape = "SELECT concat_ws(' ', (SELECT string_agg(version, ',' ORDER BY version) FROM seaql_migrations),
            (SELECT count(*) FROM pg_attribute WHERE NOT attisdropped), (SELECT count(*) FROM pg_proc),
            (SELECT count(*) FROM pg_trigger WHERE tgenabled = 'O'), (SELECT count(*) FROM pg_constraint)) AS shape";
        self.query(shape).await[0]["shape"].as_str().unwrap().to_owned()
    }

    fn of_postgres(name: String, holder: Option<DatabaseConnection>) -> Self {
        Self { url: url_of(&name), backend: Backend::Postgres, name, connection: OnceCell::new(), holder }
    }

    /// Its name: on SQLite its file's.
    pub(crate) fn name(&self) -> &str {
        match self.backend {
            Backend::Sqlite => self.url.rsplit(['/', '?']).nth(1).unwrap(),
            Backend::Postgres => &self.name,
        }
    }

    /// One connection of the test's own, beside the application's. What it reads is not counted.
    pub(crate) async fn connect(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(&self.url);
        options.max_connections(1).sqlx_logging(false);
        options.map_sqlx_postgres_opts(|postgres| postgres.options([("track_counts", "off")]));
        Database::connect(options).await.unwrap()
    }

    /// Fails if Clawback has read a whole table that grows, in whatever statement. Ends its sessions: they say what they did
    /// when they end, at the latest.
    pub(crate) async fn no_table_was_read_as_a_whole(&self) {
        if self.backend != Backend::Postgres {
            return;
        }
        self.end_other_sessions().await;
        let sql = format!(
            "SELECT relname AS table, seq_scan AS scans FROM pg_stat_user_tables
            WHERE seq_scan > 0 AND relname NOT IN ('{}') ORDER BY relname",
            SMALL_TABLES.join("', '")
        );
        let scans = self.query(&sql).await;
        assert!(scans.is_empty(), "whole tables were read; is an index missing? {scans:?}");
    }

    /// Of what was read so far, nothing counts: migrations read tables to make their indexes.
    pub(crate) async fn forget_what_was_read(&self) {
        if self.backend == Backend::Postgres {
            self.end_other_sessions().await;
            self.query("SELECT pg_stat_reset()::text AS done").await;
        }
    }

    async fn end_other_sessions(&self) {
        let others = "pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
            AND pid <> pg_backend_pid()";
        // Waits until they have ended.
        self.count(&format!("(SELECT pg_terminate_backend(pid, 30000) FROM {others}) AS ended")).await;
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
        for table in rows(&connection, TABLES).await {
            let table = table["name"].as_str().unwrap();
            let sql = format!("SELECT COALESCE(json_agg(t), '[]')::text AS rows FROM {table} t");
            let all = rows(&connection, &sql).await.remove(0);
            tables.push((table.to_owned(), all["rows"].as_str().unwrap().to_owned()));
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
        for (table, rows) in &backup.tables {
            let sql = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::json)");
            connection
                .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, [rows.into()]))
                .await
                .unwrap();
        }
        connection.execute_unprepared("SELECT pg_stat_reset()").await.unwrap();
        connection.close().await.unwrap();
    }

    /// When the test is over.
    pub(crate) async fn give_back(&self) {
        if self.holder.is_none() {
            self.drop_it().await;
        }
    }

    async fn drop_it(&self) {
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
        let making = Db::create_empty(Backend::Postgres).await;
        let ledger = Ledger::connect(&making.url, LEDGER_OPTIONS).await.unwrap();
        ledger.migrate_up().await.unwrap();
        ledger.close().await.unwrap();
        making.execute(&format!("COMMENT ON DATABASE {} IS '{}'", making.name, making.shape().await)).await;
        making.shared().await.close_by_ref().await.unwrap();
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
