//! What waits on the broker: the queues' names from RabbitMQ's management API, their lengths from the queues themselves, because the
//! API's are seconds old.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use serde::Deserialize;

use crate::{bare, place::Place};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Queue {
    name: String,
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
    let queues: Vec<Queue> = serde_json::from_slice(&get(place, "queues").await?)?;
    let (connection, channel) = bare::open(&place.amqp_url).await?;
    let (mut most, mut last_rise) = (0, Instant::now());
    loop {
        let ready = ready(&channel, &queues).await?;
        if ready >= count {
            break;
        }
        if ready > most {
            (most, last_rise) = (ready, Instant::now());
        }
        if last_rise.elapsed() > PATIENCE {
            bail!("{ready} of {count} jobs are on the queues, and no more came within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    connection.close(200, "OK".into()).await?;
    Ok(())
}

async fn ready(channel: &Channel, queues: &[Queue]) -> Result<u32> {
    let mut ready = 0;
    for queue in queues {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        ready +=
            channel.queue_declare(queue.name.as_str().into(), options, FieldTable::default()).await?.message_count();
    }
    Ok(ready)
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
