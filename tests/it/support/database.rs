//! A database of its own for each test, dropped at the end.

use std::path::PathBuf;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, FromQueryResult, JsonValue, Statement,
};
use uuid::Uuid;

use super::required;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// An empty database.
pub(crate) struct Db {
    pub(crate) url: String,
    pub(crate) backend: Backend,
    name: String,
}

impl Db {
    pub(crate) async fn create(backend: Backend) -> Self {
        let name = format!("clawback_test_{}", Uuid::new_v4().simple());
        let url = match backend {
            Backend::Sqlite => {
                let path = folder().join(format!("{name}.db"));
                format!("sqlite://{}?mode=rwc", path.display())
            }
            Backend::Postgres => {
                admin().await.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
                let mut url = url::Url::parse(&required("DATABASE_URL")).unwrap();
                url.set_path(&name);
                url.to_string()
            }
        };
        Self { url, backend, name }
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

    pub(crate) async fn execute(&self, sql: &str) {
        let connection = self.connect().await;
        connection.execute_unprepared(sql).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The rows of a query, as JSON objects.
    pub(crate) async fn query(&self, sql: &str) -> Vec<JsonValue> {
        let connection = self.connect().await;
        let rows = rows(&connection, sql).await;
        connection.close().await.unwrap();
        rows
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        let connection = self.connect().await;
        let found = count(&connection, from).await;
        connection.close().await.unwrap();
        found
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

async fn admin() -> DatabaseConnection {
    let connection = Database::connect(required("DATABASE_URL")).await.expect("DATABASE_URL can't be reached");
    assert_eq!(connection.get_database_backend(), DbBackend::Postgres, "DATABASE_URL must be PostgreSQL's");
    connection
}
