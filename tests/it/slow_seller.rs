//! A seller about whom Stripe is slow has its share of the worker's places, and no more: the others go on.

use serde_json::json;
use stripe_sim::Fault;

use crate::support::{TestApp, both_databases, eventually, refund_event};

/// Two of them may call about one seller.
const FOUR_PLACES: (&str, &str) = ("REVERSAL_CONCURRENCY", "4");
const SLOW: Fault = Fault::Slow { delay_ms: 12_000 };
const TRANSFERS: i64 = 6;

both_databases! {
    a_seller_about_whom_stripe_is_slow_leaves_places_to_the_others_and_loses_no_retry,
}

async fn a_seller_about_whom_stripe_is_slow_leaves_places_to_the_others_and_loses_no_retry(mut app: TestApp) {
    app.restart_with(&[FOUR_PLACES]).await;
    for seller in ["slow", "well"] {
        register(&app, seller).await;
    }
    for n in 0..TRANSFERS {
        app.sim.fault(format!("tr_slow_{n}").as_str(), SLOW, 1);
    }
    refund(&app, "slow").await;
    let asked = |seller: &str| (0..TRANSFERS).filter(|n| is_asked(&app, seller, *n)).count();
    eventually("Stripe is asked about the slow seller", || async { (asked("slow") >= 2).then_some(()) }).await;
    refund(&app, "well").await;
    eventually("all of the other seller is reversed", || async {
        (0..TRANSFERS).all(|n| app.reversed_at_stripe(&format!("tr_well_{n}")) == 100).then_some(())
    })
    .await;
    let answered = (0..TRANSFERS).filter(|n| app.reversed_at_stripe(&format!("tr_slow_{n}")) > 0).count();
    assert_eq!((asked("slow"), answered), (2, 0), "the other seller had to wait, or the slow one had too many places");

    app.sim.clear_faults();
    app.until_none_is_open().await;
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, 2 * TRANSFERS);
    assert_eq!(app.db.count("calls WHERE attempts > 0").await, 0);
}

async fn register(app: &TestApp, seller: &str) {
    let transfers: Vec<_> = (0..TRANSFERS)
        .map(|n| {
            let (id, destination) = (format!("tr_{seller}_{n}"), format!("acct_{seller}"));
            app.sim.add_transfer(&id, 100, "eur", &destination);
            json!({"seller_id": seller, "stripe_transfer_id": id, "destination": destination, "amount": 100, "currency": "eur"})
        })
        .collect();
    let (payment_ref, amount) = (format!("pi_{seller}"), TRANSFERS * 100);
    let payment = json!({"payment_ref": payment_ref, "amount": amount, "currency": "eur", "transfers": transfers});
    assert_eq!(app.register(payment).await.status(), 201);
}

async fn refund(app: &TestApp, seller: &str) {
    let (event, refund, payment) = (format!("evt_{seller}"), format!("re_{seller}"), format!("pi_{seller}"));
    let event = refund_event(&event, &refund, &payment, TRANSFERS * 100).to_string();
    assert_eq!(app.post_webhook(&event).await.status(), 200);
}

/// Whether Stripe was asked to reverse it.
fn is_asked(app: &TestApp, seller: &str, n: i64) -> bool {
    app.sim.ledger().reversal_posts(&format!("tr_{seller}_{n}")).next().is_some()
}
