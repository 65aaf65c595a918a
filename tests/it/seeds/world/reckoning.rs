//! The final reckoning: what Stripe really did, against what it reported and what the settings say of that. The ledger is only
//! believed where it explains what is missing, with a reason.

use std::collections::{HashMap, HashSet};

use clawback::ledger::DisputePolicy;
use clawback::reconcile::Walk;
use clawback::worker::Limiter;
use sea_orm::JsonValue;
use stripe_sim::{Dispute, DisputeStatus, Refund, RefundStatus};

use super::World;
use super::scenario::Payment;
use crate::support::{count, rows};

/// What must become of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Takes,
    Held,
    /// It is not owed any more.
    Over,
    /// It never asked for anything.
    Nothing,
    /// It may still come to nothing, and nobody wants to know.
    Unheard,
}

/// A refund or a dispute, as Stripe has it and as the ledger has it.
struct Claim {
    fate: Fate,
    charge: String,
    amount: i64,
    row: JsonValue,
}

impl Claim {
    /// Whether it is owed, and the ledger says so.
    fn stands(&self) -> bool {
        self.fate == Fate::Takes && self.row["status"] == "matched"
    }
}

/// A reversal of ours at Stripe: amount and id.
type Effect = (i64, String);

/// Both ledgers.
struct Reckoning<'a> {
    world: &'a World,
    theirs: stripe_sim::Ledger,
    /// By reference.
    claims: HashMap<String, Claim>,
    /// The ledger's reversals.
    reversals: Vec<JsonValue>,
    /// The ledger's transfers.
    transfers: Vec<JsonValue>,
    /// What Stripe did for us, by transfer and claim.
    effects: HashMap<(String, String), Effect>,
}

impl World {
    pub(super) async fn reckon(&self) {
        let theirs = self.sim.ledger();
        let all = "SELECT reference, status, status_reason, attention FROM claims";
        let found = rows(&self.look, all).await.into_iter();
        let mut found: HashMap<String, JsonValue> = found.map(|row| (text(&row, "reference"), row)).collect();
        let refunds = theirs.refunds.values().map(|it| (&it.id, self.of_refund(it), &it.charge, it.amount));
        let disputes = theirs.disputes.values().map(|it| (&it.id, self.of_dispute(it), &it.charge, it.amount));
        let mut claims = HashMap::new();
        let told = self.told.values().map(|it| {
            let fate = if it.succeeded { Fate::Takes } else { Fate::Over };
            (&it.id, fate, &it.charge, it.amount)
        });
        for (id, fate, charge, amount) in refunds.chain(disputes).chain(told) {
            let row = found.remove(id).unwrap_or_default();
            claims.insert(id.clone(), Claim { fate, charge: charge.clone(), amount, row });
        }
        assert!(found.is_empty(), "seed {}: claims of nothing: {found:?}", self.seed);
        let reversals = "SELECT lower(hex(r.id)) AS id, r.status, r.amount, r.amount_closed, r.stripe_reversal_id,
                r.externally_reversed AS foreign_hand, k.state, k.failure_code, k.requested_at, c.reference,
                t.stripe_transfer_id AS transfer, lower(hex(t.id)) AS transfer_id
            FROM reversals r JOIN calls k ON k.id = r.id JOIN seller_transfers t ON t.id = r.transfer_id
            JOIN claims c ON c.id = r.claim_id";
        let reversals = rows(&self.look, reversals).await;
        let transfers =
            "SELECT p.payment_ref, p.amount AS paid, t.amount, t.withheld, t.status, lower(hex(t.id)) AS id,
                t.stripe_transfer_id AS transfer, t.destination
            FROM seller_transfers t JOIN payments p ON p.id = t.payment_id";
        let transfers = rows(&self.look, transfers).await;
        let mut effects = HashMap::new();
        for transfer in theirs.transfers.values() {
            for it in transfer.reversals.iter().filter(|it| it.counts()) {
                let Some(claim) = it.metadata.get("clawback_claim") else { continue };
                let claim = claim.split_once(':').map_or(claim.as_str(), |(_, reference)| reference).to_owned();
                let key = (transfer.id.clone(), claim);
                let twice = effects.insert(key, (it.amount, it.id.clone()));
                assert_eq!(twice, None, "seed {}: taken twice: {transfer:?}", self.seed);
            }
        }
        let reckoning = Reckoning { world: self, theirs, claims, reversals, transfers, effects };
        reckoning.every_claim_is_where_it_must_be();
        let told = reckoning.what_was_forgotten_is_told_by_reconcile().await;
        reckoning.every_reversal_is_as_the_ledger_says(&told);
        reckoning.every_transfer_gave_what_is_owed(&told);
        self.the_ledger_agrees_with_itself().await;
    }

    fn of_refund(&self, refund: &Refund) -> Fate {
        let is_accepted = self.plan.accepted.contains(&refund.id);
        let is_old = Some(refund.created) < self.plan.policy.refunds_since;
        let lacks_funds = refund.pending_reason.as_deref() == Some("insufficient_funds");
        match refund.status {
            RefundStatus::Failed | RefundStatus::Canceled => Fate::Over,
            _ if refund.is_release => Fate::Nothing,
            RefundStatus::Pending | RefundStatus::RequiresAction if !lacks_funds => Fate::Unheard,
            _ if is_accepted => Fate::Takes,
            RefundStatus::Pending if !self.plan.policy.reverse_on_pending => Fate::Held,
            _ if is_old => Fate::Held,
            _ => Fate::Takes,
        }
    }

    fn of_dispute(&self, dispute: &Dispute) -> Fate {
        use DisputeStatus as S;
        let is_old = Some(dispute.created) < self.plan.policy.refunds_since;
        match (dispute.status, self.plan.policy.disputes) {
            (S::Won | S::ChargeRefunded, _) => Fate::Over,
            (S::WarningNeedsResponse | S::WarningUnderReview | S::WarningClosed, _) => Fate::Nothing,
            _ if self.plan.accepted.contains(&dispute.id) => Fate::Takes,
            (_, DisputePolicy::Withdrawn) | (S::Lost, DisputePolicy::Lost) if !is_old => Fate::Takes,
            _ => Fate::Held,
        }
    }

    fn payment_of(&self, charge: &str) -> &Payment {
        let is_it = |payment: &&Payment| payment.at_stripe.charge.as_deref() == Some(charge);
        self.plan.payments.iter().find(is_it).unwrap()
    }

    /// The rows follow from each other.
    async fn the_ledger_agrees_with_itself(&self) {
        for (wrong, why) in [
            (
                "seller_transfers t WHERE status = 'reversal_pending' OR amount_reversed <>
                    (SELECT COALESCE(SUM(amount), 0) FROM reversals r WHERE r.transfer_id = t.id AND r.status IN ('reversed', 'closed'))",
                "a transfer does not follow from its reversals",
            ),
            (
                "claims c JOIN reversals r ON r.claim_id = c.id WHERE c.kind = 'refund' AND c.status = 'failed'
                    AND c.attention IS NULL AND r.status = 'reversed'",
                "nobody is told of what a failed refund took",
            ),
            (
                "reversals r JOIN calls k ON k.id = r.id WHERE (r.status, k.state) NOT IN (VALUES ('reversed', 'done'),
                    ('permanently_failed', 'failed'), ('called_off', 'called_off'), ('called_off', 'waiting'), ('closed', 'called_off'))",
                "a call says something else than its reversal",
            ),
            (
                "seller_transfers t JOIN calls k ON k.id = t.id WHERE NOT t.created_by_us OR k.state <>
                    CASE WHEN t.stripe_transfer_id IS NOT NULL THEN 'done' WHEN t.withheld = t.amount THEN 'called_off' ELSE 'failed' END",
                "a call says something else than its transfer",
            ),
            ("claims WHERE status_reason IS NULL", "a claim does not say why it is where it is"),
        ] {
            assert_eq!(count(&self.look, wrong).await, 0, "seed {}: {why}", self.seed);
        }
    }
}

impl Reckoning<'_> {
    fn every_claim_is_where_it_must_be(&self) {
        for (id, claim) in &self.claims {
            let Claim { fate, charge, row, .. } = claim;
            let status = row["status"].as_str();
            let is_right = match fate {
                Fate::Takes | Fate::Held if self.may_be_a_release(id, claim) => true,
                Fate::Takes => self.may_be(claim),
                Fate::Held => status == Some("held"),
                Fate::Over => status == Some("failed"),
                Fate::Nothing => status == Some("nothing_to_reverse") || !row["attention"].is_null(),
                Fate::Unheard => status.is_none(),
            };
            let seed = self.world.seed;
            assert!(
                is_right,
                "seed {seed}: {id} of {charge} is {fate:?}, and {row}\n{:?}",
                self.theirs.charges[charge]
            );
        }
    }

    /// Of just what was not captured, whose release is shown as a refund, too: an operator is asked.
    fn may_be_a_release(&self, id: &str, Claim { charge, amount, row, .. }: &Claim) -> bool {
        let charge = &self.theirs.charges[charge];
        let is_its_amount = self.theirs.refunds.contains_key(id) && *amount == charge.amount - charge.amount_captured;
        is_its_amount && row["status"] == "nothing_to_reverse" && !row["attention"].is_null()
    }

    /// A claim that must take is matched, unless there is a reason that anybody can see.
    fn may_be(&self, Claim { charge, row, .. }: &Claim) -> bool {
        let payment = self.world.payment_of(charge);
        let (at_stripe, discovery) = (&self.theirs.charges[charge], self.world.plan.policy.discovery);
        let group = at_stripe.transfer_group.as_deref();
        let mut transfers = self.theirs.transfers.values().filter(|of| of.transfer_group.as_deref() == group);
        let is_clear = payment.in_the_way.is_none() && transfers.clone().all(|of| of.reversals.is_empty());
        let is_told = !is_clear && !row["attention"].is_null();
        match row["status"].as_str() {
            Some("matched") => true,
            Some("conflicting") => payment.registered.is_some_and(|amount| amount != at_stripe.amount_captured),
            _ if payment.registered.is_some() => false,
            Some("unmatched") => !discovery || is_told,
            // A transfer that was made later may be another charge's.
            Some("nothing_to_reverse") => transfers.next().is_none() || is_told,
            _ => false,
        }
    }

    fn every_reversal_is_as_the_ledger_says(&self, told: &HashSet<String>) {
        let (seed, forgot) = (self.world.seed, self.world.losses > 0);
        for row in &self.reversals {
            let claim = &self.claims[&text(row, "reference")];
            let effect = self.effects.get(&(text(row, "transfer"), text(row, "reference")));
            let attention = claim.row["attention"].as_str().unwrap_or_default();
            let code = row["failure_code"].as_str().unwrap_or_default();
            match row["status"].as_str().unwrap() {
                "reversed" if !is_true(row, "foreign_hand") => {
                    let expected = (row["amount"].as_i64().unwrap(), text(row, "stripe_reversal_id"));
                    assert_eq!(effect, Some(&expected), "seed {seed}: {row}");
                }
                "reversed" | "closed" => assert_eq!(effect, None, "seed {seed}: {row}"),
                "called_off" => {
                    let is_live = |other: &&JsonValue| other["status"] != "called_off";
                    let is_same = |other: &&JsonValue| {
                        (&other["transfer_id"], &other["reference"]) == (&row["transfer_id"], &row["reference"])
                    };
                    let is_replaced = self.reversals.iter().filter(is_same).any(|other| is_live(&other));
                    let is_told = effect.is_none_or(|(_, trr)| attention.contains(trr) || told.contains(trr));
                    assert!(is_replaced || is_told, "seed {seed}: called off, although it happened: {row}");
                    // One that failed meanwhile may find that others have taken what it asks.
                    let was_over = self.world.told.contains_key(&text(row, "reference"));
                    let is_owed = claim.stands() && !is_replaced && row["state"] != "waiting" && !was_over;
                    assert!(!is_owed, "seed {seed}: called off, although it is owed: {row}");
                    let was_looked_for = code == "not_owed" || row["requested_at"].is_null();
                    assert!(was_looked_for, "seed {seed}: called off, although it was asked for: {row}");
                }
                "permanently_failed" => {
                    let is_explained = effect.is_none_or(|(_, trr)| told.contains(trr));
                    assert!(is_explained, "seed {seed}: given up, although it happened: {row}");
                    let transfer = &self.theirs.transfers[&text(row, "transfer")];
                    let amount = row["amount"].as_i64().unwrap();
                    let is_right = forgot || !claim.stands() || transfer.left() < amount;
                    let why = "failed permanently, although nobody else took the money";
                    assert!(is_right, "seed {seed}: {why}: {row}\n{transfer:?}");
                    assert!(!code.is_empty(), "seed {seed}: failed without a reason: {row}");
                }
                _ => panic!("seed {seed}: still on its way: {row}"),
            }
        }
    }

    /// A database that forgot what Stripe did may call it off, or not know of it. Reconcile tells of all that: returns the ids of
    /// transfers and reversals that it names.
    async fn what_was_forgotten_is_told_by_reconcile(&self) -> HashSet<String> {
        let is_recorded = |trr: &str| self.reversals.iter().any(|row| row["stripe_reversal_id"] == trr);
        let forgotten: Vec<_> = self.effects.iter().filter(|(_, (_, trr))| !is_recorded(trr)).collect();
        let is_forgotten = |row: &JsonValue| row["transfer"].is_null() && self.at_stripe(row).is_some();
        let paid = self.transfers.iter().any(is_forgotten);
        if self.world.losses == 0 || (!paid && forgotten.is_empty()) {
            assert!(forgotten.is_empty(), "seed {}: Stripe did what nobody recorded: {forgotten:?}", self.world.seed);
            return HashSet::new();
        }
        let (ledger, stripe) = (self.world.ledger.clone(), self.world.worker.stripe.clone());
        let mut walk = Walk::new(ledger, stripe, Limiter::new(100_000), None, false);
        let mut told = HashSet::new();
        while let Some(page) = walk.next_page().await.unwrap() {
            for difference in page.differences {
                told.extend(difference.stripe_reversal_id.into_iter().chain([difference.stripe_transfer_id]));
            }
        }
        for ((transfer, claim), (amount, trr)) in forgotten {
            let about = || {
                let charge = &self.claims[claim].charge;
                let its: Vec<_> = self.reversals.iter().filter(|row| row["reference"] == *claim).collect();
                format!(
                    "{:?}\n{:?}\n{}\n{its:#?}",
                    self.theirs.transfers[transfer], self.theirs.charges[charge], self.claims[claim].row
                )
            };
            let seed = self.world.seed;
            // Nobody registered it, and nobody has to: the ledger may know nothing of the transfer any more, or only why not.
            let row = &self.claims[claim].row;
            let is_unknown = !self.transfers.iter().any(|row| row["transfer"] == **transfer);
            let parked = format!(
                "lookups l JOIN calls k ON k.id = l.id WHERE k.state = 'failed' AND l.result LIKE '%{transfer}%'"
            );
            let is_refused = count(&self.world.look, &parked).await > 0;
            let is_seen = is_unknown && (row["status"] == "failed" || !row["attention"].is_null() || is_refused);
            let is_told = told.contains(trr) || told.contains(transfer) || is_seen;
            assert!(is_told, "seed {seed}: nobody tells of {trr}, {amount} for {claim}: {}", about());
        }
        told
    }

    /// Every seller has an account of its own, so that what was paid twice shows.
    fn at_stripe(&self, row: &JsonValue) -> Option<&stripe_sim::Transfer> {
        let there = self.theirs.transfers_to(row["destination"].as_str().unwrap());
        assert!(there.len() < 2, "seed {}: paid twice: {there:?}", self.world.seed);
        there.first().copied()
    }

    /// By ratio, of all claims that are owed, together at most the payment. Fractions of a minor unit go to anyone. What is
    /// missing has failed with a reason; what is too much was taken for a claim that was called off, and somebody is told.
    fn every_transfer_gave_what_is_owed(&self, told: &HashSet<String>) {
        let seed = self.world.seed;
        for row in &self.transfers {
            let number = |column: &str| row[column].as_i64().unwrap();
            let charge = text(row, "payment_ref").replace("pi_", "ch_");
            let (paid, amount) = (number("paid"), number("amount"));
            let known = [Some(self.theirs.charges[&charge].amount_captured), self.world.payment_of(&charge).registered];
            assert!(known.contains(&Some(paid)), "seed {seed}: {row}");
            let (there, expected) = (self.at_stripe(row), amount - number("withheld"));
            let is_right = match there {
                Some(of) if row["transfer"].is_null() => told.contains(&of.id),
                Some(of) => of.amount == expected && of.id == text(row, "transfer"),
                // Of a charge that was never captured there is nothing to transfer.
                None => expected == 0 || self.theirs.charges[&charge].amount_captured == 0,
            };
            assert!(is_right, "seed {seed}: {row} is {there:?}");
            if row["transfer"].is_null() && expected > 0 {
                assert_eq!(row["status"], "permanently_failed", "seed {seed}: {row}");
                continue; // Not paid; or paid and forgotten, which was told.
            }

            let of = |claim: &str| &self.claims[claim];
            let mine: Vec<_> = self.reversals.iter().filter(|reversal| reversal["transfer_id"] == row["id"]).collect();
            let taken = amount - there.map_or(0, |of| of.left());
            let foreign = there.iter().flat_map(|of| &of.reversals).filter(|it| it.metadata.is_empty());
            let foreign: i64 = foreign.map(|it| it.amount).sum();
            let its = self.claims.values().filter(|claim| claim.charge == charge);
            let owed = its.clone().filter(|claim| claim.stands()).map(|claim| claim.amount).sum::<i64>().min(paid);
            let (owed, rest) = (amount * owed / paid, amount * owed % paid);
            let sellers =
                self.transfers.iter().filter(|other| other["payment_ref"] == row["payment_ref"]).count() as i64;
            let rounding = sellers + if self.world.losses > 0 { its.clone().count() as i64 } else { 0 };

            // Whatever it was taken for, the next claims count it as taken.
            let effects = self.effects.iter().filter(|((transfer, _), _)| *transfer == text(row, "transfer"));
            let stray: Vec<_> = effects.filter(|((_, claim), _)| !of(claim).stands()).collect();
            let is_told = |claim: &str, trr: &str| !of(claim).row["attention"].is_null() || told.contains(trr);
            let withheld = mine.iter().filter(|it| it["status"] == "closed" && !of(&text(it, "reference")).stands());
            let withheld: i64 = withheld.map(|it| it["amount"].as_i64().unwrap()).sum();
            let explained: i64 =
                stray.iter().filter(|((_, claim), (_, trr))| is_told(claim, trr)).map(|(_, (amount, _))| amount).sum();
            let too_much = taken - foreign - owed - i64::from(rest > 0) - rounding - explained - withheld;
            let about = || {
                format!("{row}\nowed {owed}, taken {taken}, of that by others {foreign}, stray {stray:?}\n{mine:#?}")
            };
            assert!(too_much <= 0, "seed {seed}: {too_much} too much were taken: {}", about());

            let is_excused =
                |it: &&&JsonValue| of(&text(it, "reference")).stands() && it["status"] == "permanently_failed";
            let excused: i64 = mine.iter().filter(is_excused).map(|it| it["amount"].as_i64().unwrap()).sum();
            let name = text(row, if row["transfer"].is_null() { "id" } else { "transfer" });
            let left: i64 = its.clone().map(|claim| left_to_an_operator(claim, &name)).sum();
            let missing = owed - taken - rounding - excused - left;
            let is_forgotten = there.is_some() && row["transfer"].is_null();
            assert!(
                missing <= 0 || is_forgotten,
                "seed {seed}: {missing} were not taken, and nobody is told: {}",
                about()
            );
        }
    }
}

/// What the claims of a payment owe of a transfer, and none of them can ask for: nobody can, or Stripe took less under the key
/// than a ledger that forgot asks for.
fn left_to_an_operator(Claim { row, .. }: &Claim, transfer: &str) -> i64 {
    let attention = row["attention"].as_str().unwrap_or_default();
    let before = |words: &str| -> Option<i64> { attention.split_once(words)?.0.rsplit(' ').next()?.parse().ok() };
    let more = before(&format!(" eur more of transfer {transfer} are owed"));
    let counted = before(&format!(" eur of transfer {transfer} counted for refunds that came meanwhile"));
    let words = format!(" eur of transfer {transfer} for it, and it asks for ");
    let asked = attention.split_once(&words).and_then(|(_, rest)| rest.split_once(':')?.0.parse::<i64>().ok());
    let less = before(&words).zip(asked).map(|(taken, asked)| (asked - taken).max(0));
    more.unwrap_or(0) + counted.unwrap_or(0) + less.unwrap_or(0)
}

fn is_true(row: &JsonValue, column: &str) -> bool {
    row[column] == true || row[column] == 1
}

fn text(row: &JsonValue, column: &str) -> String {
    row[column].as_str().unwrap_or_default().to_owned()
}
