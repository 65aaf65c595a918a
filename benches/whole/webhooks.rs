//! Intake: webhooks over a number of keep-alive connections, each of which sends the next one when its last is answered.

use std::{
    cell::RefCell,
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::{http::Connection, place::Place, program};

/// What one number of connections achieved.
#[derive(Debug, Serialize)]
pub(crate) struct Intake {
    pub(crate) connections: u32,
    pub(crate) webhooks: u32,
    pub(crate) webhooks_per_second: f64,
    #[serde(flatten)]
    pub(crate) latency: Percentiles,
}

/// Of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Percentiles {
    /// `latencies` must not be empty.
    pub(crate) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| {
            let place = (latencies.len() * percent / 100).min(latencies.len() - 1);
            latencies[place].as_secs_f64() * 1000.0
        };
        Self { p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

/// Sends the refunds of these payments, each once.
///
/// # Errors
/// When a webhook is not accepted.
pub(crate) async fn send(place: &Place, payments: Range<u32>, connections: u32) -> Result<Intake> {
    let webhooks = payments.end - payments.start;
    let left = RefCell::new(payments);
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(place.serve).await?);
    }
    let started = Instant::now();
    let latencies = try_join_all(opened.into_iter().map(|mut connection| {
        let left = &left;
        async move {
            let mut latencies = Vec::new();
            loop {
                let Some(number) = left.borrow_mut().next() else { return anyhow::Ok(latencies) };
                let sent = Instant::now();
                program::send_webhook(&mut connection, number).await?;
                latencies.push(sent.elapsed());
            }
        }
    }))
    .await?;
    let webhooks_per_second = f64::from(webhooks) / started.elapsed().as_secs_f64();
    let latency = Percentiles::of(latencies.into_iter().flatten().collect());
    Ok(Intake { connections, webhooks, webhooks_per_second, latency })
}
