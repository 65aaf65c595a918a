//! Hears of commits in other processes: PostgreSQL's LISTEN, turned into the relay's wake-up. On SQLite it does nothing;
//! the relay's fallback interval covers other processes there.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::postgres::PgListener;
use sea_orm::{DatabaseConnection, DbBackend};
use tokio::sync::Notify;

use crate::ledger::OUTBOX_CHANNEL;

const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Wakes `wake` whenever a commit announces new jobs. Runs until dropped.
pub(super) async fn listen(db: &DatabaseConnection, wake: Arc<Notify>) {
    if db.get_database_backend() != DbBackend::Postgres {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = listen_once(db, &wake).await {
            tracing::warn!(%error, "not listening for new jobs of other processes; trying again");
        }
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

async fn listen_once(db: &DatabaseConnection, wake: &Notify) -> Result<(), sea_orm::sqlx::Error> {
    let mut listener = PgListener::connect_with(db.get_postgres_connection_pool()).await?;
    listener.listen(OUTBOX_CHANNEL).await?;
    loop {
        // What was announced before the first LISTEN, or while the connection was lost, is looked for, too.
        wake.notify_one();
        listener.try_recv().await?;
    }
}
