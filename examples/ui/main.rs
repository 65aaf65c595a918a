//! `./dev ui`: Clawback with a simulated Stripe and a lively sample, to look at the pages. Stays until Ctrl-C.
#![expect(clippy::print_stdout, reason = "telling is what it is for")]

mod sample;

use std::time::Duration;

use anyhow::{Context, Result};
use clawback::app::{App, Patience, Role};
use clawback::config::Config;
use stripe_sim::Sim;
use tokio::sync::oneshot;

const API_TOKEN: &str = "operate-the-sample";
const WEBHOOK_SECRET: &str = "whsec_of_the_sample";
const READ_TOKEN: &str = "read-the-sample";

#[tokio::main]
async fn main() -> Result<()> {
    let amqp_url = std::env::var("AMQP_URL").context("AMQP_URL is not set: run `./dev ui`")?;
    let payments = std::env::args().nth(1).map_or(Ok(300), |number| number.parse()).context("usage: ui [PAYMENTS]")?;
    let folder = std::env::temp_dir().join(format!("clawback-ui-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let stripe = Sim::start();
    let app = start(&amqp_url, &format!("sqlite://{}?mode=rwc", folder.join("clawback.db").display()), &stripe).await?;
    let url = format!("http://{}", app.http_addr().context("HTTP is not served")?);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run_until(async {
        let _ = stopped.await;
        Duration::ZERO
    }));
    println!("Making {payments} payments with refunds and disputes …");
    let http = reqwest::Client::new();
    let app = sample::Clawback { http: &http, url: &url, token: API_TOKEN, webhook_secret: WEBHOOK_SECRET };
    sample::play(&app, &stripe, payments).await?;
    sample::play_rarities(&app, &stripe).await?;
    println!("\n  {url}/ui/\n\n  token {API_TOKEN}   (to look only: {READ_TOKEN})\n\nCtrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    drop(stop);
    running.await??;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn start(amqp_url: &str, database_url: &str, stripe: &Sim) -> Result<App> {
    let stripe = stripe.base_url();
    let address = std::env::var("HTTP_ADDR").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let settings = [
        ("AMQP_URL", amqp_url),
        ("DATABASE_URL", database_url),
        ("HTTP_ADDR", &address),
        ("STRIPE_API_BASE", &stripe),
        ("STRIPE_API_KEY", "sk_test_of_the_sample"),
        ("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("STRIPE_MAX_RPS", "1000"),
        ("STRIPE_DISCOVERY", "off"),
        ("API_TOKEN", API_TOKEN),
        ("API_READ_TOKEN", READ_TOKEN),
        ("DISPUTE_POLICY", "lost"),
        ("REVERSAL_MAX_RETRIES", "2"),
        ("REVERSAL_BACKOFF_BASE", "1s"),
        ("REVERSAL_BACKOFF_MAX", "10m"),
        ("TRANSFER_RETRY_MAX_RETRIES", "1"),
        ("TRANSFER_RETRY_BACKOFF_BASE", "1s"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_parts(None, settings)?;
    let patience = Patience { settling: Duration::from_secs(2), ..Patience::default() };
    App::build_with(&config, Role::All, patience).await
}
