//! `./dev demo`: a refund's whole way, on a real RabbitMQ and a simulated Stripe, told as it happens.
//!
//! Ends with exit code 0 only if Clawback's ledger and the simulator's own ledger agree.
#![expect(clippy::print_stdout, reason = "telling is what it is for")]

mod discovery;
mod story;
mod watch;
mod webhook;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clawback::app::{App, Patience, Role};
use clawback::config::Config;
use serde_json::Value;
use stripe_sim::{Fault, Sim};
use tokio::sync::oneshot;

const WEBHOOK_SECRET: &str = "whsec_of_the_demo";
const API_TOKEN: &str = "token-of-the-demo";
const HTTP_ADDR: &str = "127.0.0.1:8080";

#[tokio::main]
async fn main() -> Result<()> {
    let keep = std::env::args().any(|argument| argument == "--keep");
    let amqp_url = std::env::var("AMQP_URL").context("AMQP_URL is not set: run `./dev demo`")?;
    let folder = std::env::temp_dir().join(format!("clawback-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let database_url = format!("sqlite://{}?mode=rwc", folder.join("clawback.db").display());

    let stripe = Sim::start();
    stripe.add_transfer("tr_bakery", 6_000, "eur", "acct_bakery");
    stripe.add_transfer("tr_florist", 3_000, "eur", "acct_florist");
    stripe.fault("tr_florist", Fault::UnavailableHtml, 2);
    let app = start(&amqp_url, &database_url, &stripe.base_url(), keep).await?;
    let api = format!("http://{}", app.http_addr().context("HTTP is not served")?);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run_until(async {
        let _ = stopped.await;
        Duration::ZERO
    }));

    println!("{}", story::opening(&api));
    let http = reqwest::Client::new();
    let ending = play(&http, &api, &stripe).await;
    if keep && ending.is_ok() {
        println!("{}", story::kept(&api, API_TOKEN, &management(), &stripe.base_url(), &folder));
        tokio::signal::ctrl_c().await?;
    }
    drop(stop);
    running.await??;
    std::fs::remove_dir_all(&folder)?;
    ending
}

/// Registers a payment, posts the refund, watches what becomes of it, and compares the two ledgers.
async fn play(http: &reqwest::Client, api: &str, stripe: &Sim) -> Result<()> {
    println!("\n1. The marketplace registers a payment of 100.00 EUR, of which three sellers got a part:\n");
    for seller in story::payment()["transfers"].as_array().into_iter().flatten() {
        println!("     {}", story::seller(seller));
    }
    let registered = http.post(format!("{api}/v1/payments")).bearer_auth(API_TOKEN);
    expect(registered.json(&story::payment()).send().await?, 201).await?;

    println!("\n2. The buyer gets everything back. Stripe posts a signed `refund.created`; Clawback answers:\n");
    let event = webhook::refund("re_demo", "pi_demo", 10_000).to_string();
    let signature = webhook::sign(WEBHOOK_SECRET, &event)?;
    let posted = http.post(format!("{api}/webhooks/stripe")).header("stripe-signature", signature).body(event);
    println!("     {}", expect(posted.send().await?, 200).await?);

    println!("\n3. What becomes of each transfer:\n");
    let transfers = watch::until_all_have_ended(http, api, API_TOKEN, "pi_demo").await?;

    println!("\n4. Clawback's ledger beside Stripe's own:\n");
    let mut agree = true;
    println!("     {:<12} {:<20} {:>10} {:>10}", "transfer", "status", "Clawback", "Stripe");
    for transfer in &transfers {
        let id = transfer["stripe_transfer_id"].as_str().unwrap_or_default();
        let ours = transfer["amount_reversed"].as_i64().unwrap_or_default();
        let theirs: i64 = stripe.ledger().reversals(id).iter().map(|reversal| reversal.amount).sum();
        println!(
            "     {id:<12} {:<20} {:>10} {:>10}",
            text(&transfer["status"]),
            story::money(ours),
            story::money(theirs)
        );
        agree &= ours == theirs;
    }
    if !agree {
        bail!("the ledgers differ");
    }
    let statuses: Vec<&str> = transfers.iter().map(|transfer| text(&transfer["status"])).collect();
    if statuses != ["reversed", "reversed", "permanently_failed"] {
        bail!("the transfers ended as {statuses:?}, which is not how this story goes");
    }
    println!("\n   They agree. {}", story::moral(&management()));
    discovery::play(http, api, stripe).await
}

async fn start(amqp_url: &str, database_url: &str, stripe: &str, keep: bool) -> Result<App> {
    // With --keep the address is the usual one, so that it can be tried by hand; else any free one.
    let http_addr = if keep { HTTP_ADDR } else { "127.0.0.1:0" };
    let settings = [
        ("AMQP_URL", amqp_url),
        ("DATABASE_URL", database_url),
        ("HTTP_ADDR", http_addr),
        ("STRIPE_API_BASE", stripe),
        ("STRIPE_API_KEY", "sk_test_of_the_demo"),
        ("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("API_TOKEN", API_TOKEN),
        ("REVERSAL_BACKOFF_BASE", "1s"),
        ("REVERSAL_BACKOFF_MAX", "4s"),
        ("REVERSAL_CHECK_INTERVAL", "30s"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_parts(None, settings)?;
    let patience = Patience { settling: Duration::from_secs(2), ..Patience::default() };
    App::build_with(&config, Role::All, patience).await
}

/// Where RabbitMQ's management UI is, with user and password.
fn management() -> String {
    std::env::var("RABBITMQ_MANAGEMENT_URL").unwrap_or_default()
}

async fn expect(answer: reqwest::Response, status: u16) -> Result<String> {
    let (got, body) = (answer.status(), answer.text().await?);
    if got != status {
        bail!("Clawback answered {got}: {body}");
    }
    Ok(body)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
