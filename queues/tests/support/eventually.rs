//! Waiting for what nobody tells.

use super::PATIENCE;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Asks again and again: for what only the broker knows, and tells nobody.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what} did not come"))
}
