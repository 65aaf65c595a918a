//! The relay's side of the outbox. A claim is a lease, not a lock: no transaction stays open while the broker is talked to.

use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox::{Refusal, Table};
use queues::{Message, PublishError};
use sea_orm::sqlx::PgPool;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Statement, Value,
};
use serde_json::json;
use uuid::Uuid;

use super::Route;
use crate::ledger::schema::outbox::{Column, Entity, Model};
use crate::ledger::{OUTBOX_CHANNEL, id_set, in_future, in_ids, now};
use crate::reached::reached;

/// How long a claimed row stays with its relay: longer than the publisher waits for a connection, a place and a confirm together.
const LEASE: Duration = Duration::from_secs(50);
/// Before a row that the broker refused is tried again.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(2);
const PRUNE_BATCH: i64 = 1_000;

/// The ledger's outbox, and where its jobs go.
#[derive(Debug)]
pub struct LedgerTable {
    db: DatabaseConnection,
    routes: Vec<Route>,
    /// Before a row of an unknown kind is looked at again.
    pause_of_unknown: Duration,
}

impl LedgerTable {
    pub(super) fn new(db: DatabaseConnection, routes: Vec<Route>, pause_of_unknown: Duration) -> Self {
        Self { db, routes, pause_of_unknown }
    }

    async fn free_later(&self, ids: &[Uuid], pause: Duration, error: &str) -> Result<(), DbErr> {
        let values = vec![in_future(pause).into(), error.into()];
        self.set_rows("claimed_until = $2, last_error = $3", ids, values).await
    }

    /// One statement whatever the number of rows, so its plan is kept.
    async fn set_rows(&self, set: &str, ids: &[Uuid], mut values: Vec<Value>) -> Result<(), DbErr> {
        if ids.is_empty() {
            return Ok(());
        }
        let backend = self.db.get_database_backend();
        let sql = format!("UPDATE outbox SET {set} WHERE id {} AND published_at IS NULL", in_ids(backend));
        values.insert(0, id_set(ids));
        let done = self.db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await;
        done.inspect_err(count_error).map(drop)
    }
}

impl Table for LedgerTable {
    type Row = Model;
    type Error = DbErr;

    async fn claim(&self, limit: usize, except: &[String]) -> Result<Vec<Model>, DbErr> {
        let backend = self.db.get_database_backend();
        // Materialized: PostgreSQL may otherwise choose the rows several times over, each time others, and more than `limit`.
        let (lock, except_kinds) = match backend {
            DbBackend::Postgres => ("FOR UPDATE SKIP LOCKED", "jsonb_array_elements_text($4::jsonb)"),
            _ => ("", "value FROM json_each($4)"),
        };
        let sql = format!(
            "WITH free AS MATERIALIZED (SELECT id FROM outbox
                WHERE published_at IS NULL AND (claimed_until IS NULL OR claimed_until <= $1)
                    AND kind NOT IN (SELECT {except_kinds}) ORDER BY id LIMIT $2 {lock})
            UPDATE outbox SET claimed_until = $3, attempts = attempts + 1 WHERE id IN (SELECT id FROM free) RETURNING *"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = [now().into(), limit.into(), in_future(LEASE).into(), json!(except).to_string().into()];
        let rows = self.db.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await;
        let rows = rows.inspect_err(count_error)?;
        let mut claimed = rows.iter().map(|row| Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
        claimed.sort_by_key(|row| row.id);
        if claimed.iter().any(|row| row.attempts > 1 && row.last_error.is_none()) {
            reached!("the lease of another relay had ended");
        }
        Ok(claimed)
    }

    /// Each kind of job has a queue.
    fn queue<'a>(&'a self, row: &'a Model) -> &'a str {
        &row.kind
    }

    fn message(&self, row: &mut Model) -> Result<Message, String> {
        // A newer program's job: it is left to that program's relay.
        let unknown = || "this version knows no such kind of job".to_owned();
        let route = self.routes.iter().find(|route| route.kind == row.kind).ok_or_else(unknown)?;
        let payload = std::mem::take(&mut row.payload).into_bytes();
        let message = Message::new(&route.topology, row.kind.clone(), row.id.to_string(), payload);
        let message = message.with_correlation_id(row.entity_id.to_string());
        Ok(match &row.traceparent {
            Some(traceparent) => message.with_traceparent(traceparent),
            None => message,
        })
    }

    async fn mark(&self, published: &[Model]) -> Result<(), DbErr> {
        let ids: Vec<Uuid> = published.iter().map(|row| row.id).collect();
        self.set_rows("published_at = $2, last_error = NULL", &ids, vec![now().into()]).await
    }

    async fn give_back(&self, refused: &[(Model, Refusal)]) -> Result<(), DbErr> {
        let (mut unknown, mut not_taken) = (Vec::new(), Vec::new());
        for (row, why) in refused {
            if let Refusal::NoMessage(reason) = why {
                unknown.push((row.id, reason.clone()));
            } else {
                not_taken.push((row.id, why.to_string()));
            }
            if let Refusal::Broker(PublishError::Returned { .. }) = why {
                reached!("the broker returned a job, since its queue was gone");
            }
        }
        metrics::counter!("clawback_relay_errors_total", "what" => "refused").increment(not_taken.len() as u64);
        for (rows, pause) in [(unknown, self.pause_of_unknown), (not_taken, PAUSE_AFTER_REFUSAL)] {
            let (ids, errors): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            self.free_later(&ids, pause, errors.first().map_or("", String::as_str)).await?;
        }
        Ok(())
    }

    async fn next_free(&self, except: &[String]) -> Result<Option<Duration>, DbErr> {
        let next: Option<Option<DateTime<Utc>>> = Entity::find()
            .select_only()
            .column(Column::ClaimedUntil)
            .filter(Column::PublishedAt.is_null())
            .filter(Column::ClaimedUntil.is_not_null())
            .filter(Column::Kind.is_not_in(except))
            .order_by_asc(Column::ClaimedUntil)
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(next.flatten().map(|free| (free - now()).to_std().unwrap_or_default()))
    }

    async fn maintain(&self, keep: Duration) -> Result<(), DbErr> {
        let sql =
            "WITH old AS MATERIALIZED (SELECT id FROM outbox WHERE published_at < $1 ORDER BY published_at LIMIT $2)
            DELETE FROM outbox WHERE id IN (SELECT id FROM old)";
        let values: [Value; 2] = [(now() - keep).into(), PRUNE_BATCH.into()];
        let statement = Statement::from_sql_and_values(self.db.get_database_backend(), sql, values);
        while self.db.execute_raw(statement.clone()).await?.rows_affected() == PRUNE_BATCH as u64 {}
        Ok(())
    }

    fn announcements(&self) -> Option<(&PgPool, &'static str)> {
        let is_postgres = self.db.get_database_backend() == DbBackend::Postgres;
        is_postgres.then(|| (self.db.get_postgres_connection_pool(), OUTBOX_CHANNEL))
    }
}

fn count_error(_: &DbErr) {
    metrics::counter!("clawback_relay_errors_total", "what" => "database").increment(1);
}
