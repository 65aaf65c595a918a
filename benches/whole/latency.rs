//! From sending a webhook until the ledger says `reversed`, one refund at a time, on an idle program.
//!
//! A trigger of this benchmark's notifies when the transfer's status is committed, so nothing polls. The ledger says so only after
//! the simulator has answered the call; that each call arrived is checked at the end.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sea_orm::sqlx::{PgPool, postgres::PgListener, query};

use crate::{http::Connection, place::Place, program, webhooks::Percentiles};

const WITHIN: Duration = Duration::from_secs(10);

/// # Errors
/// When a transfer is not reversed in time.
pub(crate) async fn measure(place: &Place, db: &PgPool, payments: Range<u32>) -> Result<Percentiles> {
    for statement in [
        "CREATE FUNCTION bench_tell() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_notify('bench_reversed', NEW.stripe_transfer_id); RETURN NULL; END $$",
        "CREATE TRIGGER bench_tell AFTER UPDATE ON seller_transfers FOR EACH ROW WHEN (NEW.status = 'reversed') \
         EXECUTE FUNCTION bench_tell()",
    ] {
        query(statement).execute(db).await?;
    }
    let mut listener = PgListener::connect_with(db).await?;
    listener.listen("bench_reversed").await?;
    let mut connection = Connection::open(place.serve).await?;
    let mut latencies = Vec::new();
    for number in payments {
        let sent = Instant::now();
        program::send_webhook(&mut connection, number).await?;
        let told = tokio::time::timeout(WITHIN, listener.recv()).await;
        let told =
            told.with_context(|| format!("{} was not reversed within {WITHIN:?}", program::transfer_id(number)))??;
        latencies.push(sent.elapsed());
        ensure!(told.payload() == program::transfer_id(number), "{} was reversed out of turn", told.payload());
    }
    query("DROP TRIGGER bench_tell ON seller_transfers").execute(db).await?;
    Ok(Percentiles::of(latencies))
}
