//! The second act: a payment that nobody registered is found at Stripe.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use stripe_sim::{Endpoint, NewPayment, NewRefund, PaymentTransfer, Sim};

use crate::{API_TOKEN, WEBHOOK_SECRET, expect, story, text, watch};

const DEADLINE: Duration = Duration::from_secs(30);

/// Has Stripe tell of a refund of a payment that Clawback has never heard of, and watches it being found and taken back.
pub(crate) async fn play(http: &reqwest::Client, api: &str, stripe: &Sim) -> Result<()> {
    println!(
        "\n5. Nobody registered the next payment: 50.00 EUR, of which 40.00 went to the bakery in the group order_2."
    );
    println!("   Stripe tells of its refund, and Clawback asks Stripe whose money that is:\n");
    let transfer = PaymentTransfer {
        id: Some("tr_found".to_owned()),
        amount: 4_000,
        currency: None,
        destination: "acct_bakery".to_owned(),
        from_charge: false,
    };
    let charge = stripe.pay(NewPayment {
        payment_intent: Some("pi_found".to_owned()),
        transfer_group: Some("order_2".to_owned()),
        transfers: vec![transfer],
        ..NewPayment::new(5_000, "eur")
    });
    stripe.refund(NewRefund::part(&charge.id, 2_500));
    for webhook in stripe.webhooks(&Endpoint::new("", WEBHOOK_SECRET)) {
        let posted = http.post(format!("{api}/webhooks/stripe")).header("stripe-signature", webhook.signature);
        let answer = expect(posted.body(webhook.body).send().await?, 200).await?;
        println!("     {:<18} {answer}", webhook.kind);
    }
    println!();
    until_found(http, api).await?;
    let transfers = watch::until_all_have_ended(http, api, API_TOKEN, "pi_found").await?;
    let theirs: i64 = stripe.ledger().reversals("tr_found").iter().map(|reversal| reversal.amount).sum();
    match &transfers[..] {
        [only]
            if text(&only["status"]) == "partially_reversed"
                && only["amount_reversed"] == theirs
                && theirs == 2_000 =>
        {
            println!("\n   Half was refunded, half came back: {}, here and at Stripe.", story::money(theirs));
            Ok(())
        }
        other => bail!("the found payment ended as {other:?}, and Stripe took back {theirs}"),
    }
}

async fn until_found(http: &reqwest::Client, api: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let asked = http.get(format!("{api}/v1/payments/pi_found")).bearer_auth(API_TOKEN);
        if asked.send().await?.status().is_success() {
            return Ok(());
        }
        if start.elapsed() > DEADLINE {
            bail!("the payment was not found within {DEADLINE:?}");
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
