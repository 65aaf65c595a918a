//! Gets messages out of the way whose properties are not UTF-8: lapin cannot read them, and each of its connections that
//! receives one ends. RabbitMQ takes them from other programs.

use crate::{Broker, PublishError, Publisher, headers, publisher::Outgoing};
use std::{io, time::Duration};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(60);
const REASON: &str = "its properties are not UTF-8: what could not be read of them was replaced or left out";

/// How long a queue with a single active consumer may hand over nothing: it is empty, or its consumer is another one, which
/// then looks for such messages itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks at the first `depth` messages of a queue, and puts a readable copy of each unreadable one into the parking queue.
/// The others return to their places. Answers how many were unreadable. With `single_active` the queue has a single active
/// consumer, none of which takes more than `depth`.
///
/// # Errors
/// Why it ended early; nothing is lost.
pub(crate) async fn rescue(
    broker: &Broker,
    publisher: &Publisher,
    (queue, parked_queue): (&str, &str),
    depth: u32,
    single_active: bool,
) -> Result<u32, String> {
    let work = async {
        let mut channel = broker.open_raw(queue).await?;
        let mut rescued = 0;
        if single_active {
            channel.consume(u16::try_from(depth).unwrap_or(u16::MAX)).await?;
        }
        for _ in 0..depth {
            let next = match single_active {
                true => timeout(PATIENCE, channel.delivered()).await.ok().transpose()?,
                false => channel.get().await?,
            };
            let Some(mut message) = next else { break };
            if message.is_readable() {
                continue;
            }
            let repaired = message.repaired();
            let id = headers::message_id(&repaired).unwrap_or_else(|| Uuid::now_v7().to_string());
            let mut outgoing = Outgoing {
                id: id.clone(),
                exchange: "".into(),
                routing_key: parked_queue.into(),
                payload: std::mem::take(&mut message.payload),
                properties: headers::of_rescue(&repaired, &id, REASON),
            };
            let mut sent = publisher.send(outgoing.clone()).await;
            if let Err(PublishError::Invalid { .. }) = sent {
                outgoing.properties = headers::without_foreign(&outgoing.properties, REASON);
                sent = publisher.send(outgoing).await;
            }
            sent.map_err(io::Error::other)?;
            channel.ack(message.tag).await?;
            warn!(id, queue, "parked a message of another program: its properties are not UTF-8");
            rescued += 1;
        }
        if single_active {
            channel.stop_consuming().await?
        } else {
            channel.close().await?
        }
        Ok::<u32, io::Error>(rescued)
    };
    info!(queue, depth, "looking for messages that cannot be read");
    let rescued = timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    rescued.map_err(|error| error.to_string())
}
