//! A dispute that is over takes nothing. What Stripe was not asked for is called off; for the rest the claim's `attention`
//! says how much to pay back for each transfer.

use std::collections::HashMap;

use uuid::Uuid;

use super::DisputeStage;
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::claims::matching::By;
use crate::ledger::claims::withdrawn::{self, Because, Kept, Withdrawn};
use crate::ledger::claims::{attention, matching};
use crate::ledger::events::ClaimKind;
use crate::ledger::history::Note;
use crate::ledger::schema::{claim, payment, reversal};
use crate::ledger::status::{ClaimStatus, ReversalStatus};

pub(super) fn end(
    book: &mut Book,
    claim: claim::Model,
    stage: DisputeStage,
    by: By<'_>,
) -> Result<Withdrawn, LedgerError> {
    let (before, now, reason) = (claim.clone(), book.now, stage.ending());
    book.move_claim(claim, ClaimStatus::Failed, &Note::new(by.actor, &reason), |row| {
        (row.stage, row.failed_at, row.status_reason) = (Some(stage), Some(now), Some(reason.clone()));
        row.attention = row.attention.as_deref().and_then(attention::without_reinstatement);
    });
    let mut outcome = Withdrawn::default();
    if before.status == ClaimStatus::Matched {
        let because = Because { code: "dispute_over", what: &reason };
        let (called_off, kept) = withdrawn::cancel(book, &before, &because, by.actor)?;
        let payment = before.payment_id.and_then(|id| book.payments.get(id).cloned());
        let short = match &payment {
            Some(payment) => {
                let short = matching::take_shortfall(book, payment, &before, by)?;
                let excess = matching::excess(book, payment);
                (pay_back(&reason, called_off, &kept, &excess), short)
            }
            None => (None, Vec::new()),
        };
        let attention = short.0.into_iter().chain(short.1);
        let attention = attention.collect::<Vec<_>>().join(". ");
        outcome = Withdrawn { called_off, attention: (!attention.is_empty()).then_some(attention) };
        if let Some(payment) = payment {
            review_ended(book, &payment, &before, &kept);
        }
    }
    withdrawn::set_result(book, before.id, reason, &outcome);
    Ok(outcome)
}

/// Looks again at disputes that are over and had nothing to pay back, since other claims would have taken as much: `gone`, which
/// has kept `kept` of its own, takes nothing any more.
pub(in crate::ledger::claims) fn review_ended(
    book: &mut Book,
    payment: &payment::Model,
    gone: &claim::Model,
    kept: &[Kept],
) {
    let mut excess = matching::excess(book, payment);
    for (row, ..) in kept {
        excess.entry(row.transfer_id).and_modify(|left| *left -= row.amount);
    }
    let is_quiet = |row: &&claim::Model| {
        row.kind == ClaimKind::Dispute && row.status == ClaimStatus::Failed && row.attention.is_none()
    };
    let its = |row: &&claim::Model| row.payment_id == Some(payment.id) && row.id != gone.id;
    let ended: Vec<claim::Model> = book.claims.all().filter(its).filter(is_quiet).cloned().collect();
    for dispute in ended {
        let rows = book.reversals.all().filter(|row| row.claim_id == dispute.id);
        let (called_off, stay): (Vec<_>, Vec<_>) =
            rows.cloned().partition(|row| row.status == ReversalStatus::CalledOff);
        let with_its_own =
            |row: reversal::Model| Some((row.clone(), book.call(row.id).ok()?, book.transfer(row.transfer_id).ok()?));
        let kept: Vec<Kept> = stay.into_iter().filter_map(with_its_own).collect();
        let why = dispute.stage.map(DisputeStage::ending).unwrap_or_default();
        let Some(what) = pay_back(&why, called_off.len(), &kept, &excess) else { continue };
        attention::add(book, dispute.id, &what);
        for (row, ..) in &kept {
            excess.entry(row.transfer_id).and_modify(|left| *left -= row.amount);
        }
    }
}

/// What an operator must do about what Stripe was asked for. `excess`: what each transfer has given beyond its other claims.
fn pay_back(why: &str, called_off: usize, kept: &[Kept], excess: &HashMap<Uuid, i64>) -> Option<String> {
    let back = |(row, _, parent): &Kept| {
        let amount = excess.get(&row.transfer_id).copied().unwrap_or_default().min(row.amount);
        let name = parent.name();
        (amount > 0).then(|| format!("{amount} {} for transfer {name} (seller {})", row.currency, parent.seller_id))
    };
    let payments: Vec<String> = kept.iter().filter_map(back).collect();
    // What other claims of the payment would have taken stays.
    if payments.is_empty() && kept.iter().all(|(row, ..)| row.status == ReversalStatus::Reversed) {
        return None;
    }
    let each: Vec<String> = kept.iter().map(|(row, call, parent)| attention::about(row, call, parent)).collect();
    let to_pay = if payments.is_empty() { "nothing".to_owned() } else { payments.join(", ") };
    Some(format!(
        "{why}, and {called_off} of its {} reversals could be called off. {}. To pay back with new transfers, as far as it \
         was or is taken: {to_pay} (amounts in minor units)",
        called_off + kept.len(),
        each.join("; ")
    ))
}
