//! Watches a payment's transfers over the API, and tells each step once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{story, text};

const DEADLINE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// Returns the transfers once none of their reversals is pending any more.
pub(crate) async fn until_all_have_ended(
    http: &reqwest::Client,
    api: &str,
    token: &str,
    payment_ref: &str,
) -> Result<Vec<Value>> {
    let start = Instant::now();
    let mut told = HashSet::new();
    loop {
        let asked = http.get(format!("{api}/v1/payments/{payment_ref}")).bearer_auth(token);
        let payment: Value = asked.send().await?.error_for_status()?.json().await?;
        let transfers = payment["transfers"].as_array().cloned().unwrap_or_default();
        for transfer in &transfers {
            let step = step(transfer);
            if told.insert(step.clone()) {
                println!("     {:>5.2} s  {step}", start.elapsed().as_secs_f64());
            }
        }
        if transfers.iter().all(|transfer| text(&transfer["status"]) != "reversal_pending") {
            return Ok(transfers);
        }
        if start.elapsed() > DEADLINE {
            bail!("not everything had ended after {DEADLINE:?}");
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

fn step(transfer: &Value) -> String {
    let id = text(&transfer["stripe_transfer_id"]);
    let reversal = &transfer["reversals"][0];
    let failure = text(&reversal["failure_message"]);
    let amount = story::money(reversal["amount"].as_i64().unwrap_or_default());
    let what = match (text(&reversal["status"]), reversal["retry_count"].as_i64()) {
        ("reversed", _) => format!("reversed: {amount} are back ({})", text(&reversal["stripe_reversal_id"])),
        ("permanently_failed", _) => format!("failed permanently and parked: {failure}"),
        ("pending", Some(1..)) => format!("retry {} is waiting: {failure}", reversal["retry_count"]),
        _ => format!("owes {amount}; its job is on the way"),
    };
    format!("{id:<12} {what}")
}
