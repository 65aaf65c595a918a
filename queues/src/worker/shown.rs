//! A worker has two connections and shows one state: made of both, here. Runs beside the supervisor, within
//! [`Worker::run`](super::Worker::run). It changes nothing but what is shown.

use crate::ConnectionState;
use std::convert::Infallible;
use tokio::{select, sync::watch};

/// Shows the state of a worker's two connections as one, for as long as it works.
pub(super) async fn show(
    state: &watch::Sender<ConnectionState>,
    mut consuming: watch::Receiver<ConnectionState>,
    mut publishing: watch::Receiver<ConnectionState>,
) -> Infallible {
    loop {
        let blocked = *publishing.borrow_and_update() == ConnectionState::Blocked;
        let seen = consuming.borrow_and_update().clone();
        let seen = if blocked && seen.is_connected() { ConnectionState::Blocked } else { seen };
        state.send_if_modified(|state| {
            let changed = *state != seen;
            *state = seen;
            changed
        });
        // An error means that the publisher is closed, which it is not while the worker works.
        select! {
            Ok(()) = consuming.changed() => {}
            Ok(()) = publishing.changed() => {}
            else => std::future::pending().await,
        }
    }
}
