//! What a job is: a payload with a stable name. Users implement it; publishing and consuming read it.
//! It never says how the job is done: that is [`Handler`](crate::Handler).

use serde::{Serialize, de::DeserializeOwned};

/// One kind of work: a payload that survives a journey through the broker.
///
/// The payload is JSON in the message's body; [`KIND`](Self::KIND) is the message's `type` property.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct SendReceipt {
///     order: String,
/// }
///
/// impl queues::Job for SendReceipt {
///     const KIND: &'static str = "send_receipt";
/// }
/// ```
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind's stable name (at most 255 bytes). Messages that are already in a queue carry it, so it outlives every
    /// rename of the Rust type.
    const KIND: &'static str;
}
