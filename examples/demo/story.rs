//! The demo's words.

use std::path::Path;

use serde_json::{Value, json};

/// Three sellers: one that goes well, one whose Stripe is down twice, and one that can never succeed.
pub(crate) fn payment() -> Value {
    json!({
        "payment_ref": "pi_demo",
        "amount": 10_000,
        "currency": "eur",
        "transfers": [
            {"seller_id": "bakery", "stripe_transfer_id": "tr_bakery", "destination": "acct_bakery", "amount": 6_000, "currency": "eur"},
            {"seller_id": "florist", "stripe_transfer_id": "tr_florist", "destination": "acct_florist", "amount": 3_000, "currency": "eur"},
            {"seller_id": "ghost", "stripe_transfer_id": "tr_ghost", "destination": "acct_ghost", "amount": 500, "currency": "eur"},
        ],
    })
}

pub(crate) fn seller(transfer: &Value) -> String {
    let why = match transfer["seller_id"].as_str() {
        Some("bakery") => "all goes well",
        Some("florist") => "Stripe will answer 503 twice",
        _ => "Stripe does not know this transfer",
    };
    let amount = money(transfer["amount"].as_i64().unwrap_or_default());
    let id = transfer["stripe_transfer_id"].as_str().unwrap_or_default();
    format!("{id:<12} {amount:>10}   {why}")
}

pub(crate) fn money(minor_units: i64) -> String {
    format!("{}.{:02} EUR", minor_units / 100, minor_units % 100)
}

pub(crate) fn opening(api: &str) -> String {
    format!("Clawback runs at {api}, with a real RabbitMQ, an embedded SQLite and a simulated Stripe.")
}

pub(crate) fn moral(management: &str) -> String {
    format!(
        "The job of tr_ghost waits in the queue `reversals.parked`, with its reason,\n   \
         until an operator decides. RabbitMQ's management UI, which `./dev demo --keep` leaves up:\n   {}",
        with_login(management)
    )
}

pub(crate) fn kept(api: &str, token: &str, management: &str, stripe: &str, folder: &Path) -> String {
    format!(
        "\nEverything stays up until Ctrl-C:\n\n  \
         Clawback    curl -H 'Authorization: Bearer {token}' {api}/v1/payments/pi_demo\n  \
         RabbitMQ    {}\n  \
         Stripe      curl {stripe}/_sim/ledger\n  \
         the ledger  {}",
        with_login(management),
        folder.join("clawback.db").display()
    )
}

/// `http://user:password@host` as people want to read it.
fn with_login(management: &str) -> String {
    let Ok(mut url) = url::Url::parse(management) else { return "not known here".to_owned() };
    let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    // Both fail only for URLs without a host, of which there is one.
    let _ = (url.set_username(""), url.set_password(None));
    format!("{url} (user {user}, password {password})")
}
