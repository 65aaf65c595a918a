//! Payments, refunds and disputes in every state that a page shows. Also used by the test in a browser.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use stripe_sim::{Fault, Sim};

/// Sellers with their accounts. The last one has markup for a name, and one never has any money.
const SELLERS: [(&str, &str); 6] = [
    ("bakery", "acct_bakery"),
    ("florist", "acct_florist"),
    ("bookshop", "acct_bookshop"),
    ("ceramics", "acct_ceramics"),
    ("empty-pockets", "acct_empty"),
    ("<b>Bobby&Söhne</b>", "acct_bobby"),
];

/// No transfer to it can be created.
const REFUSES: &str = "acct_refuses";

/// What becomes of a payment.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Refunded,
    PartlyRefunded,
    LacksBalance,
    UnknownTransfer,
    ClosedAccount,
    ToCreate,
    NotCreated,
    OtherCurrency,
    Unregistered,
    Old,
    Disputed,
    Lost,
}

/// The fates in turn: most go well.
const FATES: [Fate; 24] = {
    use Fate::{
        ClosedAccount, Disputed, Kept, LacksBalance, Lost, NotCreated, Old, OtherCurrency, PartlyRefunded, Refunded,
        ToCreate, UnknownTransfer, Unregistered,
    };
    [
        Refunded,
        Kept,
        PartlyRefunded,
        Refunded,
        LacksBalance,
        Refunded,
        UnknownTransfer,
        Refunded,
        Kept,
        ToCreate,
        Refunded,
        ClosedAccount,
        PartlyRefunded,
        Disputed,
        Refunded,
        Unregistered,
        Kept,
        Lost,
        Refunded,
        NotCreated,
        Refunded,
        Old,
        OtherCurrency,
        Refunded,
    ]
};

/// Where the sample goes.
pub(crate) struct Clawback<'a> {
    pub(crate) http: &'a reqwest::Client,
    pub(crate) url: &'a str,
    pub(crate) token: &'a str,
    pub(crate) webhook_secret: &'a str,
}

/// Makes that many payments, and what became of them. Ends when all is reported; the worker may still be at it.
pub(crate) async fn play(app: &Clawback<'_>, stripe: &Sim, payments: usize) -> Result<()> {
    stripe.set_balance("acct_empty", Some(0));
    for (n, fate) in (0..payments).zip(FATES.iter().copied().cycle()) {
        let currency = ["eur", "usd", "jpy"][n % 7 % 3];
        let amount = 1_000 + i64::try_from(n * 7_919 % 24_000)?;
        if !matches!(fate, Fate::Unregistered) {
            app.post("/v1/payments", &payment(n, fate, amount, currency, stripe)).await?;
        }
        for event in events(n, fate, amount, currency) {
            app.tell(&event).await?;
        }
    }
    Ok(())
}

/// What operators and providers do now and then: a pause with a debt that waits for its end and one that is called off, a refund that
/// Stripe has taken back itself, and a debt that an operation closes.
pub(crate) async fn play_rarities(app: &Clawback<'_>, stripe: &Sim) -> Result<()> {
    let note = |reason: &str| json!({"operator": "ada", "reason": reason});
    let mut pause = note("the seller objects, ticket 4711");
    (pause["seller"], pause["force"]) = (json!("acct_objects"), json!(true));
    app.post("/v1/pauses", &pause).await?;
    let refund = |name: &str, kind: &str, status: &str, reversed: Value| {
        let object = json!({
            "id": format!("re_{name}"), "object": "refund", "amount": 5_000, "currency": "eur",
            "created": chrono::Utc::now().timestamp(), "charge": format!("ch_{name}"), "payment_intent": format!("pi_{name}"),
            "status": status, "transfer_reversal": reversed, "source_transfer_reversal": null,
        });
        json!({"id": format!("evt_{name}_{kind}"), "object": "event", "type": kind, "livemode": false, "data": {"object": object}})
    };
    for (name, account) in [
        ("paused", "acct_objects"),
        ("failed", "acct_objects"),
        ("reversed", "acct_bakery"),
        ("closed", "acct_florist"),
    ] {
        let transfer = format!("tr_{name}");
        if name != "closed" {
            stripe.add_transfer(&transfer, 5_000, "eur", account);
        }
        let transfers = json!([{"seller_id": name, "stripe_transfer_id": transfer, "destination": account, "amount": 5_000,
            "currency": "eur"}]);
        let payment =
            json!({"payment_ref": format!("pi_{name}"), "amount": 5_000, "currency": "eur", "transfers": transfers});
        app.post("/v1/payments", &payment).await?;
        let reversed = if name == "reversed" { json!("trr_by_stripe") } else { Value::Null };
        app.tell(&refund(name, "refund.created", "succeeded", reversed)).await?;
    }
    app.tell(&refund("failed", "refund.failed", "failed", Value::Null)).await?;
    let failed = app.failed("closed").await?;
    let filter = json!({"action": "close_reversals", "filter": {"ids": [failed]}});
    let operation = app.post("/v1/operations", &filter).await?["id"].as_str().unwrap_or_default().to_owned();
    app.post(&format!("/v1/operations/{operation}/start"), &note("paid by invoice 4711")).await?;
    Ok(())
}

impl Clawback<'_> {
    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(self.token).json(body);
        expect(request.send().await?).await
    }

    async fn tell(&self, event: &Value) -> Result<Value> {
        let body = event.to_string();
        let request = self.http.post(format!("{}/webhooks/stripe", self.url));
        let request = request.header("stripe-signature", sign(self.webhook_secret, &body)).body(body);
        expect(request.send().await?).await
    }

    /// Clawback's id of the seller's debt, once that has failed permanently.
    async fn failed(&self, seller: &str) -> Result<Value> {
        let path = format!("{}/v1/reversals?status=permanently_failed&seller={seller}", self.url);
        for _ in 0..600 {
            let found = expect(self.http.get(&path).bearer_auth(self.token).send().await?).await?;
            if let Some(debt) = found["reversals"].get(0) {
                return Ok(debt["id"].clone());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the debt of {seller} does not fail")
    }
}

async fn expect(answer: reqwest::Response) -> Result<Value> {
    let (status, body) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        bail!("Clawback answered {status}: {body}");
    }
    serde_json::from_str(&body).with_context(|| format!("Clawback answered {body}"))
}

fn payment(n: usize, fate: Fate, amount: i64, currency: &str, stripe: &Sim) -> Value {
    let seller = if matches!(fate, Fate::LacksBalance) { 4 } else { [0, 1, 2, 3, 5][n % 5] };
    let (first, second) = (SELLERS[seller], SELLERS[(n + 2) % 4]);
    let (larger, smaller) = (amount * 6 / 10, amount * 3 / 10);
    let transfer = |position: usize, (seller, account): (&str, &str), amount: i64| {
        let id = format!("tr_{n:04}{}", ["a", "b"][position]);
        let account = if matches!((fate, position), (Fate::NotCreated, 0)) { REFUSES } else { account };
        let create = matches!(fate, Fate::ToCreate | Fate::NotCreated);
        let mut transfer = json!({"seller_id": seller, "destination": account, "amount": amount, "currency": currency});
        if create {
            transfer["create"] = json!(true);
        } else {
            transfer["stripe_transfer_id"] = json!(id);
            if !matches!((fate, position), (Fate::UnknownTransfer, 0)) {
                stripe.add_transfer(&id, amount, currency, account);
            }
        }
        let refused = |code: &str, message: &str| Fault::Refused {
            status: 400,
            code: Some(code.to_owned()),
            message: message.to_owned(),
        };
        match (fate, position) {
            (Fate::ClosedAccount, 0) => {
                stripe.fault(&id, refused("account_closed", "The account <acct_closed> has been closed & emptied."), 9);
            }
            (Fate::NotCreated, 0) => {
                stripe.fault(
                    REFUSES,
                    refused(
                        "insufficient_capabilities_for_transfer",
                        "The destination account can't receive transfers.",
                    ),
                    1,
                );
            }
            _ => {}
        }
        transfer
    };
    let transfers = [transfer(0, first, larger), transfer(1, second, smaller)];
    json!({"payment_ref": format!("pi_{n:04}"), "amount": amount, "currency": currency, "transfers": transfers})
}

fn events(n: usize, fate: Fate, amount: i64, currency: &str) -> Vec<Value> {
    let now = chrono::Utc::now().timestamp();
    let refund = |amount: i64, currency: &str, created: i64| {
        let object = json!({
            "id": format!("re_{n:04}"), "object": "refund", "amount": amount, "currency": currency, "created": created,
            "charge": format!("ch_{n:04}"), "payment_intent": format!("pi_{n:04}"), "status": "succeeded",
            "transfer_reversal": null, "source_transfer_reversal": null,
        });
        event(n, "refund.created", object)
    };
    let dispute = |kind: &str, status: &str| {
        let object = json!({
            "id": format!("du_{n:04}"), "object": "dispute", "amount": amount, "currency": currency, "created": now,
            "charge": format!("ch_{n:04}"), "payment_intent": format!("pi_{n:04}"), "status": status, "reason": "fraudulent",
        });
        event(n, kind, object)
    };
    match fate {
        Fate::Kept | Fate::NotCreated => Vec::new(),
        Fate::PartlyRefunded => vec![refund(amount / 4, currency, now)],
        Fate::OtherCurrency => vec![refund(amount, if currency == "chf" { "eur" } else { "chf" }, now)],
        Fate::Old => vec![refund(amount, currency, 1_500_000_000)],
        Fate::Disputed => vec![dispute("charge.dispute.created", "needs_response")],
        Fate::Lost => {
            let [opened, closed] =
                [dispute("charge.dispute.created", "needs_response"), dispute("charge.dispute.closed", "lost")];
            vec![opened, closed]
        }
        _ => vec![refund(amount, currency, now)],
    }
}

fn event(n: usize, kind: &str, object: Value) -> Value {
    json!({"id": format!("evt_{n:04}_{kind}"), "object": "event", "type": kind, "livemode": false, "data": {"object": object}})
}

/// `Stripe-Signature` for `body`, signed now.
fn sign(secret: &str, body: &str) -> String {
    let at = chrono::Utc::now().timestamp();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}
