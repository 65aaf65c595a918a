//! The simulator of Stripe: its transfers, and what really happened to them.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;
use tokio::process::Command;

use crate::{children::Child, http::Connection, place::Place, program::TRANSFER_AMOUNT};

const CONNECTIONS: u32 = 16;
const READY_WITHIN: Duration = Duration::from_secs(20);

/// # Errors
/// When it does not start.
pub(crate) async fn start(place: &Place) -> Result<Child> {
    let mut command = Command::new(&place.simulator_program);
    let mut child = Child::start(place, "simulator", command.args(["--listen", &place.simulator.to_string()]))?;
    let ready = async {
        while Connection::open(place.simulator).await.is_err() {
            child.ensure_running()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(READY_WITHIN, ready).await.context("the simulator did not start")??;
    Ok(child)
}

/// Makes `count` transfers, whose ids `id` gives.
///
/// # Errors
/// When the simulator refuses one.
pub(crate) async fn add_transfers(place: &Place, count: u32, id: impl Fn(u32) -> String) -> Result<()> {
    let id = &id;
    let adding = (0..CONNECTIONS).map(|first| async move {
        let mut connection = Connection::open(place.simulator).await?;
        for number in (first..count).step_by(CONNECTIONS as usize) {
            let id = id(number);
            let body =
                format!(r#"{{"id":"{id}","amount":{TRANSFER_AMOUNT},"currency":"eur","destination":"acct_bench"}}"#);
            connection.post("/_sim/transfers", "", body.as_bytes()).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(adding).await?;
    Ok(())
}

#[derive(Deserialize)]
struct Ledger {
    transfers: HashMap<String, Transfer>,
}

#[derive(Deserialize)]
struct Transfer {
    reversals: Vec<Reversal>,
}

#[derive(Deserialize)]
struct Reversal {
    amount: u32,
}

/// # Errors
/// When not each of these transfers was reversed once, and in full.
pub(crate) async fn check_reversed_once(place: &Place, count: u32, id: impl Fn(u32) -> String) -> Result<()> {
    let answer = reqwest::get(format!("{}/_sim/ledger", place.simulator_url())).await?.error_for_status()?;
    let ledger: Ledger = serde_json::from_slice(&answer.bytes().await?)?;
    for id in (0..count).map(id) {
        let transfer = ledger.transfers.get(&id).with_context(|| format!("the simulator does not know {id}"))?;
        let amounts: Vec<u32> = transfer.reversals.iter().map(|reversal| reversal.amount).collect();
        ensure!(amounts == [TRANSFER_AMOUNT], "{id} must be reversed once, by {TRANSFER_AMOUNT} (got {amounts:?})");
    }
    Ok(())
}
