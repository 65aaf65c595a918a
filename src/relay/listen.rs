//! Hears of commits in other processes: PostgreSQL's LISTEN, turned into the relay's wake-up. On SQLite it does nothing;
//! the relay's fallback interval covers other processes there.

use std::time::Duration;

use sea_orm::sqlx::postgres::PgListener;
use sea_orm::{DatabaseConnection, DbBackend};

use crate::ledger::{Handoff, OUTBOX_CHANNEL};

const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Wakes the relay whenever a commit announces new jobs. Runs until dropped.
pub(super) async fn listen(db: &DatabaseConnection, handoff: &Handoff) {
    if db.get_database_backend() != DbBackend::Postgres {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = listen_once(db, handoff).await {
            tracing::warn!(%error, "not listening for new jobs of other processes; trying again");
        }
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

async fn listen_once(db: &DatabaseConnection, handoff: &Handoff) -> Result<(), sea_orm::sqlx::Error> {
    let mut listener = PgListener::connect_with(db.get_postgres_connection_pool()).await?;
    listener.listen(OUTBOX_CHANNEL).await?;
    loop {
        // What was announced before the first LISTEN, or while the connection was lost, is looked for, too.
        handoff.notify_committed();
        listener.try_recv().await?;
    }
}
