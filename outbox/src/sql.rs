//! The statements in both dialects. Times are milliseconds since 1970 by the database's clock, but for a schedule's last tick;
//! lists travel as JSON, so a statement is the same, and its plan is kept, whatever their length.

/// One statement in both dialects. Parameters are `$1`, `$2`, … in both.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "sea-orm", all(feature = "postgres", feature = "sqlite"))),
    expect(dead_code, reason = "one of the two databases is left out")
)]
pub struct Sql {
    pub(crate) postgres: &'static str,
    pub(crate) sqlite: &'static str,
}

/// The channel on which a commit with new jobs is announced.
#[cfg(feature = "postgres")]
pub(crate) const CHANNEL: &str = "queue_outbox";

macro_rules! sql {
    (@postgres NOW) => { "(extract(epoch FROM clock_timestamp()) * 1000)::bigint" };
    (@sqlite NOW) => { "CAST(unixepoch('subsec') * 1000 AS INTEGER)" };
    (@postgres SKIP_LOCKED) => { " FOR UPDATE SKIP LOCKED" };
    (@sqlite SKIP_LOCKED) => { "" };
    (@postgres EACH) => { "json_array_elements($1::json)" };
    (@sqlite EACH) => { "json_each($1)" };
    (@postgres EACH_TEXT) => { "json_array_elements_text($1::json)" };
    (@sqlite EACH_TEXT) => { "json_each($1)" };
    (@postgres NOTIFY) => { ", pg_notify('queue_outbox', '')" };
    (@sqlite NOTIFY) => { "" };
    (@postgres TAKING) => {
        concat!(
            "WITH taken AS (INSERT INTO queue_outbox_keys (key, message_id, expires_at) VALUES ($7, $1, ",
            sql!(@postgres NOW), " + $8) ON CONFLICT (key) DO UPDATE SET message_id = excluded.message_id,
            expires_at = excluded.expires_at WHERE queue_outbox_keys.expires_at <= ", sql!(@postgres NOW), " RETURNING 1) "
        )
    };
    (@sqlite TAKING) => { "" };
    (@postgres IF_FREE) => { " FROM taken" };
    (@sqlite IF_FREE) => {
        concat!(
            " WHERE NOT EXISTS (SELECT 1 FROM queue_outbox_keys WHERE key = $7 AND expires_at > ", sql!(@sqlite NOW), ")"
        )
    };
    (@$dialect:ident $text:literal) => { $text };
    ($($part:tt)+) => {
        Sql {
            postgres: concat!($(sql!(@postgres $part)),+),
            sqlite: concat!($(sql!(@sqlite $part)),+),
        }
    };
}

/// On SQLite: takes a key whose period is over, or that nobody has taken.
pub(crate) const TAKE_KEY: Sql = sql!(
    "INSERT INTO queue_outbox_keys (key, message_id, expires_at) VALUES ($1, $2, " NOW " + $3)
     ON CONFLICT (key) DO UPDATE SET message_id = excluded.message_id, expires_at = excluded.expires_at
     WHERE queue_outbox_keys.expires_at <= " NOW " RETURNING CAST(1 AS BIGINT)"
);

pub(crate) const INSERT: Sql = sql!(
    "INSERT INTO queue_outbox (message_id, kind, queue, message, payload, created_at, free_at)
     VALUES ($1, $2, $3, $4, $5, " NOW ", " NOW " + $6) RETURNING id" NOTIFY
);

/// For the relay of this process, so it is announced to nobody.
pub(crate) const INSERT_LEASED: Sql = sql!(
    "INSERT INTO queue_outbox (message_id, kind, queue, message, payload, created_at, free_at, attempts)
     VALUES ($1, $2, $3, $4, $5, " NOW ", " NOW " + $6, 1) RETURNING id"
);

/// The job and its key in one statement, in which concurrent transactions wait for each other. SQLite has none such: there the
/// job comes first, and then [`TAKE_KEY`].
pub(crate) const INSERT_UNIQUE: Sql = sql!(
    TAKING "INSERT INTO queue_outbox (message_id, kind, queue, message, payload, created_at, free_at)
     SELECT $1, $2, $3, $4, $5, " NOW ", " NOW " + $6" IF_FREE " RETURNING id" NOTIFY
);

pub(crate) const INSERT_UNIQUE_LEASED: Sql = sql!(
    TAKING "INSERT INTO queue_outbox (message_id, kind, queue, message, payload, created_at, free_at, attempts)
     SELECT $1, $2, $3, $4, $5, " NOW ", " NOW " + $6, 1" IF_FREE " RETURNING id"
);

/// Of a job whose key another one has taken in between.
pub(crate) const TAKE_BACK: Sql = sql!("DELETE FROM queue_outbox WHERE id = $1 AND published_at IS NULL RETURNING id");

/// Only what no relay has touched: nobody knows of other jobs that they are not on the broker.
pub(crate) const CANCEL: Sql =
    sql!("DELETE FROM queue_outbox WHERE message_id = $1 AND published_at IS NULL AND attempts = 0 RETURNING id");

/// Two relays never get the same row. Materialized, or the subquery may run more than once, and take more. First the queues
/// whose rows stay.
pub(crate) const CLAIM: Sql = sql!(
    "WITH free AS MATERIALIZED (
       SELECT id FROM queue_outbox WHERE published_at IS NULL AND free_at <= " NOW "
         AND queue NOT IN (SELECT value FROM " EACH_TEXT ")
       ORDER BY free_at, id LIMIT $2" SKIP_LOCKED ")
     UPDATE queue_outbox SET free_at = " NOW " + $3, attempts = attempts + 1
     WHERE id IN (SELECT id FROM free) RETURNING id, queue, message, payload"
);

pub(crate) const MARK: Sql = sql!(
    "UPDATE queue_outbox SET published_at = " NOW ", last_error = NULL
     WHERE id IN (SELECT CAST(value AS BIGINT) FROM " EACH_TEXT ") AND published_at IS NULL"
);

/// The pause doubles with each attempt, from 2 s to 4 minutes.
pub(crate) const GIVE_BACK: Sql = sql!(
    "UPDATE queue_outbox SET last_error = refused.error,
       free_at = " NOW " + 1000 * (CASE WHEN attempts > 7 THEN 256 ELSE 1 << attempts END)
     FROM (SELECT CAST(value ->> 'id' AS BIGINT) AS id, value ->> 'error' AS error FROM " EACH ") AS refused
     WHERE queue_outbox.id = refused.id AND published_at IS NULL"
);

/// In how many milliseconds a row comes free, for others than some queues; negative if one is.
pub(crate) const NEXT_FREE: Sql = sql!(
    "SELECT free_at - " NOW " FROM queue_outbox WHERE published_at IS NULL
       AND queue NOT IN (SELECT value FROM " EACH_TEXT ") ORDER BY free_at LIMIT 1"
);

/// How many jobs are due, and for how long the oldest has been.
pub(crate) const BACKLOG: Sql = sql!(
    "SELECT count(*), COALESCE(" NOW " - min(created_at), 0) FROM queue_outbox
     WHERE published_at IS NULL AND (attempts > 0 OR free_at <= " NOW ")"
);

pub(crate) const PRUNE_JOBS: Sql = sql!(
    "DELETE FROM queue_outbox WHERE id IN (
       SELECT id FROM queue_outbox WHERE published_at < " NOW " - $1 LIMIT 1000)"
);

pub(crate) const PRUNE_KEYS: Sql = sql!(
    "DELETE FROM queue_outbox_keys WHERE key IN (
       SELECT key FROM queue_outbox_keys WHERE expires_at <= " NOW " LIMIT 1000)"
);

pub(crate) const LAST_TICK: Sql = sql!("SELECT last_tick FROM queue_outbox_schedules WHERE name = $1");

pub(crate) const FIRST_TICK: Sql =
    sql!("INSERT INTO queue_outbox_schedules (name, last_tick) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");

/// Of several schedulers one moves the tick.
pub(crate) const MOVE_TICK: Sql =
    sql!("UPDATE queue_outbox_schedules SET last_tick = $3 WHERE name = $1 AND last_tick = $2");
