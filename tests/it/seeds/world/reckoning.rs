//! The final reckoning: our ledger and Stripe's, row by row.

use std::collections::HashMap;

use super::World;
use crate::support::{count, rows};

impl World {
    /// Every seller that Clawback was to pay was paid once.
    async fn reckon_creations(&self) {
        let seed = self.seed;
        let theirs = self.sim.ledger();
        let created =
            "SELECT p.payment_ref || ':' || t.position AS name, t.amount, t.withheld, t.stripe_transfer_id AS transfer
            FROM seller_transfers t JOIN payments p ON p.id = t.payment_id WHERE t.created_by_us";
        for row in rows(&self.look, created).await {
            let name = row["name"].as_str().unwrap();
            let named = |of: &&stripe_sim::Transfer| of.metadata.get("clawback_transfer").is_some_and(|of| of == name);
            let ours = theirs.transfers.values().filter(named);
            let ours: Vec<_> = ours.map(|of| (of.id.as_str(), of.amount)).collect();
            let amount = row["amount"].as_i64().unwrap() - row["withheld"].as_i64().unwrap();
            if amount == 0 {
                assert_eq!(ours, [], "seed {seed}: paid, although all of it was withheld: {row}");
                continue;
            }
            let expected = (row["transfer"].as_str().unwrap_or("none"), amount);
            assert_eq!(ours, [expected], "seed {seed}: {row}");
        }
    }

    /// The two ledgers, row by row.
    pub(super) async fn reckon(&self) {
        self.reckon_creations().await;
        let seed = self.seed;
        let theirs = self.sim.ledger();
        let mut effects: HashMap<(String, String), Vec<(i64, String)>> = HashMap::new();
        for transfer in theirs.transfers.values() {
            for reversal in &transfer.reversals {
                if let Some(claim) = reversal.metadata.get("clawback_claim") {
                    let effect = effects.entry((transfer.id.clone(), claim.clone())).or_default();
                    effect.push((reversal.amount, reversal.id.clone()));
                }
            }
        }
        let all = "SELECT lower(hex(r.id)) AS id, r.status, r.amount, r.stripe_reversal_id,
                r.externally_reversed AS foreign_hand, k.state, k.failure_code, k.requested_at,
                t.stripe_transfer_id AS transfer, c.source || ':' || c.reference AS claim, c.failed_at AS claim_failed_at
            FROM reversals r JOIN calls k ON k.id = r.id JOIN seller_transfers t ON t.id = r.transfer_id
            JOIN claims c ON c.id = r.claim_id";
        let rows = rows(&self.look, all).await;
        assert!(count(&self.look, "claims").await > 0, "seed {seed}: nothing happened");
        for row in &rows {
            let name = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let effect = effects.remove(&(name("transfer"), name("claim"))).unwrap_or_default();
            let foreign_hand = row["foreign_hand"] == true || row["foreign_hand"] == 1;
            match (row["status"].as_str().unwrap(), foreign_hand) {
                ("reversed", false) => {
                    let expected =
                        (row["amount"].as_i64().unwrap(), row["stripe_reversal_id"].as_str().unwrap().to_owned());
                    assert_eq!(effect, [expected], "seed {seed}: {row}");
                }
                ("reversed", true) => assert_eq!(effect, [], "seed {seed}: {row}"),
                ("called_off", _) => {
                    assert_eq!(effect, [], "seed {seed}: called off, although it happened: {row}");
                    assert!(!row["claim_failed_at"].is_null(), "seed {seed}: called off, although it is owed: {row}");
                    let looked_for = row["failure_code"] == "not_owed";
                    assert!(
                        looked_for || row["requested_at"].is_null(),
                        "seed {seed}: called off, although it was asked for: {row}"
                    );
                }
                ("closed", _) => assert_eq!(effect, [], "seed {seed}: withheld, and taken back: {row}"),
                ("permanently_failed", _) => {
                    assert_eq!(effect, [], "seed {seed}: given up, although it happened: {row}");
                    if !row["claim_failed_at"].is_null() {
                        continue; // Not owed any more, and so not replayed.
                    }
                    let transfer = &theirs.transfers[row["transfer"].as_str().unwrap()];
                    let foreign = transfer.reversals.iter().any(|reversal| reversal.metadata.is_empty());
                    let all: Vec<_> = rows.iter().filter(|other| other["transfer"] == row["transfer"]).collect();
                    let at_stripe = &transfer.reversals;
                    assert!(
                        foreign,
                        "seed {seed}: failed permanently, although nobody else took the money: {row}\nours: {all:#?}\nStripe's: {at_stripe:#?}"
                    );
                }
                _ => panic!("seed {seed}: still on its way: {row}"),
            }
        }
        assert!(effects.is_empty(), "seed {seed}: Stripe has reversals that the ledger does not know: {effects:?}");
        let unsettled = "seller_transfers t WHERE status = 'reversal_pending' OR amount_reversed <>
            (SELECT COALESCE(SUM(amount), 0) FROM reversals r WHERE r.transfer_id = t.id AND r.status IN ('reversed', 'closed'))";
        assert_eq!(count(&self.look, unsettled).await, 0, "seed {seed}: a transfer does not follow from its reversals");
        let silent =
            "claims f JOIN reversals r ON r.claim_id = f.id WHERE f.failed_at IS NOT NULL AND f.attention IS NULL
            AND r.status = 'reversed'";
        assert_eq!(count(&self.look, silent).await, 0, "seed {seed}: nobody is told of what a failed refund took");
        let disagreeing = "reversals r JOIN calls k ON k.id = r.id WHERE (r.status, k.state) NOT IN
            (VALUES ('reversed', 'done'), ('permanently_failed', 'failed'), ('called_off', 'called_off'), ('closed', 'called_off'))";
        assert_eq!(
            count(&self.look, disagreeing).await,
            0,
            "seed {seed}: a call says something else than its reversal"
        );
        let uncreated = "seller_transfers t JOIN calls k ON k.id = t.id WHERE NOT t.created_by_us
            OR k.state <> (CASE WHEN t.withheld = t.amount THEN 'called_off' ELSE 'done' END)";
        assert_eq!(count(&self.look, uncreated).await, 0, "seed {seed}: a call says something else than its transfer");
    }
}
