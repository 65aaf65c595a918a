//! The final reckoning: our ledger and Stripe's, row by row.

use std::collections::HashMap;

use uuid::Uuid;

use super::World;
use crate::support::{count, rows};

impl World {
    /// Every seller that Clawback was to pay was paid once.
    async fn reckon_creations(&self) {
        let seed = self.seed;
        let theirs = self.sim.ledger();
        let created = "SELECT lower(hex(id)) AS id, amount, stripe_transfer_id AS transfer FROM seller_transfers
            WHERE epoch_started_at IS NOT NULL";
        for row in rows(&self.look, created).await {
            let id = Uuid::parse_str(row["id"].as_str().unwrap()).unwrap().to_string();
            let ours = theirs.transfers.values().filter(|of| of.metadata.get("clawback_transfer_id") == Some(&id));
            let ours: Vec<_> = ours.map(|of| (of.id.as_str(), of.amount)).collect();
            let expected = (row["transfer"].as_str().unwrap_or("none"), row["amount"].as_i64().unwrap());
            assert_eq!(ours, [expected], "seed {seed}: {row}");
        }
    }

    /// The two ledgers, row by row.
    pub(super) async fn reckon(&self) {
        self.reckon_creations().await;
        let seed = self.seed;
        let theirs = self.sim.ledger();
        let mut effects: HashMap<String, Vec<(i64, String)>> = HashMap::new();
        for transfer in theirs.transfers.values() {
            for reversal in &transfer.reversals {
                if let Some(id) = reversal.metadata.get("reversal_id") {
                    effects.entry(id.clone()).or_default().push((reversal.amount, reversal.id.clone()));
                }
            }
        }
        let all = "SELECT lower(hex(r.id)) AS id, r.status, r.amount, r.stripe_reversal_id,
                r.externally_reversed AS foreign_hand, r.failure_code, t.stripe_transfer_id AS transfer,
                f.failed_at AS refund_failed_at
            FROM reversals r JOIN seller_transfers t ON t.id = r.transfer_id JOIN refunds f ON f.id = r.refund_id";
        let rows = rows(&self.look, all).await;
        let refunds = count(&self.look, "refunds").await;
        assert!(refunds > 0, "seed {seed}: nothing happened");
        for row in &rows {
            let id = Uuid::parse_str(row["id"].as_str().unwrap()).unwrap().to_string();
            let effect = effects.remove(&id).unwrap_or_default();
            let foreign_hand = row["foreign_hand"] == true || row["foreign_hand"] == 1;
            match (row["status"].as_str().unwrap(), foreign_hand) {
                ("reversed", false) => {
                    let expected =
                        (row["amount"].as_i64().unwrap(), row["stripe_reversal_id"].as_str().unwrap().to_owned());
                    assert_eq!(effect, [expected], "seed {seed}: {row}");
                }
                ("reversed", true) => assert_eq!(effect, [], "seed {seed}: {row}"),
                ("permanently_failed", _) if row["failure_code"] == "refund_failed" => {
                    assert_eq!(effect, [], "seed {seed}: called off, although it happened: {row}");
                }
                ("permanently_failed", _) => {
                    assert_eq!(effect, [], "seed {seed}: given up, although it happened: {row}");
                    if !row["refund_failed_at"].is_null() {
                        continue; // Not owed any more, and so not replayed.
                    }
                    let transfer = &theirs.transfers[row["transfer"].as_str().unwrap()];
                    let foreign = transfer.reversals.iter().any(|reversal| reversal.metadata.is_empty());
                    assert!(foreign, "seed {seed}: given up, although nobody else took the money: {row}");
                }
                _ => panic!("seed {seed}: still on its way: {row}"),
            }
        }
        assert!(effects.is_empty(), "seed {seed}: Stripe has reversals that the ledger does not know: {effects:?}");
        let unsettled = "seller_transfers t WHERE status = 'reversal_pending' OR amount_reversed <>
            (SELECT COALESCE(SUM(amount), 0) FROM reversals r WHERE r.transfer_id = t.id AND r.status = 'reversed')";
        assert_eq!(count(&self.look, unsettled).await, 0, "seed {seed}: a transfer does not follow from its reversals");
        let silent =
            "refunds f JOIN reversals r ON r.refund_id = f.id WHERE f.failed_at IS NOT NULL AND f.attention IS NULL
            AND r.status = 'reversed'";
        assert_eq!(count(&self.look, silent).await, 0, "seed {seed}: nobody is told of what a failed refund took");
    }
}
