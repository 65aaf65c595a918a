//! What waits on the broker, from RabbitMQ's management API, which is at most a second behind.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::place::Place;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Queue {
    #[serde(default)]
    messages_ready: u64,
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

/// Waits until at least `count` messages are ready on all queues together.
///
/// # Errors
/// When no more come.
pub(crate) async fn wait_for(place: &Place, count: u32) -> Result<()> {
    let (mut most, mut last_rise) = (0, Instant::now());
    loop {
        let queues: Vec<Queue> = serde_json::from_slice(&get(place, "queues").await?)?;
        let ready: u64 = queues.iter().map(|queue| queue.messages_ready).sum();
        if ready >= count.into() {
            return Ok(());
        }
        if ready > most {
            (most, last_rise) = (ready, Instant::now());
        }
        if last_rise.elapsed() > PATIENCE {
            bail!("{ready} of {count} jobs are on the queues, and no more came within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// # Errors
/// When the management API does not answer.
pub(crate) async fn broker_version(place: &Place) -> Result<String> {
    Ok(serde_json::from_slice::<Overview>(&get(place, "overview").await?)?.rabbitmq_version)
}

async fn get(place: &Place, what: &str) -> Result<Vec<u8>> {
    // reqwest makes a header of the credentials in the URL.
    let answer = reqwest::get(format!("{}/api/{what}", place.management_url)).await?;
    Ok(answer.error_for_status()?.bytes().await?.into())
}
