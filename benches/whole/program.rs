//! Clawback as operators run it: the release binary, `serve` and `worker` as two processes, settings by environment.

use std::{fs::File, io::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{children::Child, database::MEASURED, http::Connection, place::Place};

pub(crate) const WEBHOOK_SECRET: &str = "whsec_bench";
/// The highest value that the program takes, far above what two cores can do. The limiter begins at a quarter of it.
pub(crate) const STRIPE_MAX_RPS: u32 = 10_000;
/// What a buyer pays and gets back, and what the one seller had of it.
const PAYMENT_AMOUNT: u32 = 2000;
pub(crate) const TRANSFER_AMOUNT: u32 = 1800;
const SELLERS: u32 = 500;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Stripe's id of the transfer of payment `number`.
pub(crate) fn transfer_id(number: u32) -> String {
    format!("tr_bench{number:08}")
}

/// One of Clawback's commands. Everything that is not set here has its default.
///
/// # Errors
/// When DATABASE_URL is no URL.
pub(crate) fn clawback(place: &Place, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(&place.clawback);
    command
        .args(arguments)
        .env("DATABASE_URL", place.database_url_of(MEASURED, MEASURED)?)
        .env("AMQP_URL", &place.amqp_url)
        .env("HTTP_ADDR", place.serve.to_string())
        .env("WORKER_HTTP_ADDR", place.worker.to_string())
        .env("STRIPE_API_BASE", place.simulator_url())
        .env("STRIPE_API_KEY", "sk_test_bench")
        .env("STRIPE_MAX_RPS", STRIPE_MAX_RPS.to_string())
        .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET);
    Ok(command)
}

/// Starts `clawback serve` or `clawback worker`, and returns when it is ready.
///
/// # Errors
/// When it ends or does not become ready.
pub(crate) async fn start(place: &Place, role: &'static str) -> Result<Child> {
    let mut child = Child::start(place, role, &mut clawback(place, &[role])?)?;
    let address = if role == "serve" { place.serve } else { place.worker };
    let url = format!("http://{address}/health/ready");
    let ready = async {
        while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
            child.ensure_running()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let result = tokio::time::timeout(READY_WITHIN, ready).await;
    result.with_context(|| format!("clawback {role} was not ready within {READY_WITHIN:?}"))??;
    Ok(child)
}

/// Writes `count` payments, each with one transfer, as `clawback payments import` takes them.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn write_payments(place: &Place, count: u32) -> Result<PathBuf> {
    let path = place.dir.join("payments.csv");
    let mut file = std::io::BufWriter::new(File::create(&path)?);
    writeln!(
        file,
        "payment_ref,payment_amount,payment_currency,seller_id,stripe_transfer_id,destination,amount,currency"
    )?;
    for number in 0..count {
        let (seller, transfer) = (number % SELLERS, transfer_id(number));
        writeln!(
            file,
            "pi_bench{number:08},{PAYMENT_AMOUNT},eur,seller-{seller},{transfer},acct_bench{seller},{TRANSFER_AMOUNT},eur"
        )?;
    }
    file.flush()?;
    Ok(path)
}

/// Sends the webhook of payment `number`'s full refund, signed now, and returns when it is answered.
///
/// # Errors
/// When the answer is not a 200.
pub(crate) async fn send_webhook(connection: &mut Connection, number: u32) -> Result<()> {
    let now = chrono::Utc::now().timestamp();
    let body = format!(
        r#"{{"id":"evt_bench{number:08}","object":"event","api_version":"2026-08-26.dahlia","created":{now},"data":{{"object":{{"id":"re_bench{number:08}","object":"refund","amount":{PAYMENT_AMOUNT},"balance_transaction":"txn_bench{number:08}","charge":"ch_bench{number:08}","created":{now},"currency":"eur","destination_details":{{"card":{{"reference_status":"pending","reference_type":"acquirer_reference_number","type":"refund"}},"type":"card"}},"metadata":{{}},"payment_intent":"pi_bench{number:08}","reason":"requested_by_customer","receipt_number":null,"source_transfer_reversal":null,"status":"succeeded","transfer_reversal":null}}}},"livemode":false,"pending_webhooks":1,"request":{{"id":"req_bench{number:08}","idempotency_key":null}},"type":"refund.created"}}"#
    );
    let signature = format!("stripe-signature: t={now},v1={}\r\n", sign(now, &body)?);
    connection.post("/webhooks/stripe", &signature, body.as_bytes()).await
}

fn sign(timestamp: i64, body: &str) -> Result<String> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())?;
    mac.update(format!("{timestamp}.{body}").as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}
