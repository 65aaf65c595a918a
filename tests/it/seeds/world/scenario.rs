//! What a seed's world begins with.

use clawback::ledger::{EventContent, NewPayment, NewTransfer, RefundProgress, WebhookEvent};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::refund_webhook;

/// A few payments, each with up to three transfers, and refunds of them, in part and in full; each reported twice, and some
/// as failed, too.
pub(super) fn scenario(rng: &mut StdRng) -> (Vec<NewPayment>, Vec<WebhookEvent>) {
    let (mut payments, mut events) = (Vec::new(), Vec::new());
    for p in 0..rng.random_range(1..4) {
        let mut transfers = Vec::new();
        for t in 0..rng.random_range(1..4) {
            let stripe_transfer_id = rng.random_bool(0.6).then(|| format!("tr_{p}_{t}"));
            transfers.push(NewTransfer {
                seller_id: format!("s{t}"),
                // The others are for Clawback to create.
                create: stripe_transfer_id.is_none(),
                stripe_transfer_id,
                destination: format!("acct_{p}_{t}"),
                amount: rng.random_range(10..5_000),
                currency: "eur".into(),
                ..NewTransfer::default()
            });
        }
        let amount = transfers.iter().map(|transfer| transfer.amount).sum::<i64>() + rng.random_range(0..500);
        let mut left = amount;
        for r in 0..rng.random_range(1..4) {
            let part = if rng.random_bool(0.4) { left } else { rng.random_range(1..=left) };
            left -= part;
            for source in ["created", "updated"] {
                events.push(refund_webhook(
                    &format!("evt_{p}_{r}_{source}"),
                    &format!("re_{p}_{r}"),
                    &format!("pi_{p}"),
                    part,
                ));
            }
            if rng.random_bool(0.25) {
                events.push(failure(p, r, part));
            }
            if left == 0 {
                break;
            }
        }
        let payment_ref = format!("pi_{p}");
        payments.push(NewPayment { payment_ref, amount, currency: "eur".into(), transfers, allow_excess: false });
    }
    (payments, events)
}

fn failure(payment: usize, refund: usize, amount: i64) -> WebhookEvent {
    let (event_id, refund_ref) = (format!("evt_{payment}_{refund}_failed"), format!("re_{payment}_{refund}"));
    let mut event = refund_webhook(&event_id, &refund_ref, &format!("pi_{payment}"), amount);
    if let EventContent::Refunds(refunds) = &mut event.content {
        refunds[0].progress = RefundProgress::Failed("failed".into());
    }
    event
}
