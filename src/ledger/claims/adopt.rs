//! Adopting: what Stripe has reversed and the ledger does not know counts as reversed, after a restore or where others reversed.

use std::collections::BTreeMap;

use sea_orm::ActiveEnum;
use uuid::Uuid;

use super::attention;
use super::matching::{excess, payments_of};
use crate::ledger::book::{Book, Reads};
use crate::ledger::calls::{await_reversal, reversal_done};
use crate::ledger::db::{Change, rowset};
use crate::ledger::events::Source;
use crate::ledger::history::Note;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{CallKind, CallState, ClaimStatus, ReversalEvent, ReversalStatus};
use crate::ledger::{Ledger, LedgerError, claim_name};

/// A reversal at Stripe that the ledger does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownReversal {
    /// Stripe's id, `trr_…`.
    pub stripe_reversal_id: String,
    /// Minor units of the transfer's currency; of another program's reversal only what the ledger does not count already.
    pub amount: i64,
    /// Stripe's id of what moved the money (`txn_…`).
    pub balance_transaction: Option<String>,
    /// Stripe is done with it.
    pub is_done: bool,
    /// The claim that our metadata names; none where another program reversed.
    pub claim: Option<String>,
    /// The refund with which Stripe itself made it (`re_…`).
    pub source_refund: Option<String>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// Clawback's reversal of this id is done by it.
    AsReversal(Uuid),
    /// It is another program's, and that much less is left of the transfer.
    AsTakenBefore,
    /// The ledger has it already.
    Known,
}

/// The adoption of what Stripe has of one transfer.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) transfer_id: Uuid,
    pub(super) payment_ref: String,
    pub(super) found: Vec<UnknownReversal>,
    pub(super) note: Note,
}

impl Ledger {
    /// Records reversals that Stripe has of a transfer: one with our metadata as its claim's, which is not asked for it again;
    /// another program's as taken back before. One answer for each, in their order. Changes nothing unless `keep`.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Database`]. A single answer is [`LedgerError::Conflict`] for what can't be
    /// adopted, with the reason.
    pub async fn adopt(
        &self,
        transfer_id: Uuid,
        found: Vec<UnknownReversal>,
        note: &Note,
        keep: bool,
    ) -> Result<Vec<Result<Adopted, LedgerError>>, LedgerError> {
        let of_transfer = "id IN (SELECT payment_id FROM seller_transfers WHERE id IN {ids})";
        let payment =
            rowset::select::<_, payment::Model>(&self.store.db, of_transfer, &[transfer_id], &[]).await?.pop();
        let payment_ref = payment.ok_or(unknown(transfer_id))?.payment_ref;
        let adoption = Adoption { transfer_id, payment_ref, found, note: note.clone() };
        self.store.apply_all(&[adoption], keep).await.pop().ok_or(unknown(transfer_id))?
    }
}

fn unknown(transfer_id: Uuid) -> LedgerError {
    LedgerError::NotFound { entity: "transfer", id: transfer_id.to_string() }
}

impl Change for Adoption {
    type Answer = Vec<Result<Adopted, LedgerError>>;

    fn reads(&self, reads: &mut Reads) {
        reads.names.insert(self.payment_ref.clone());
        let claims = self.found.iter().filter_map(|it| parse_claim(it.claim.as_deref()?));
        reads.claims.extend(claims.map(|(source, reference)| (source, reference.to_owned())));
    }

    fn apply(&self, book: &mut Book) -> Result<Self::Answer, LedgerError> {
        let mut differing = Vec::new();
        let mut answers = Vec::with_capacity(self.found.len());
        for it in &self.found {
            match self.adopt(book, it, &mut differing) {
                Err(error @ LedgerError::Conflict(_)) => answers.push(Err(error)),
                answer => answers.push(Ok(answer?)),
            }
        }
        if answers.iter().any(|answer| matches!(answer, Ok(Adopted::AsReversal(_)))) {
            self.ask_less(book, &mut differing)?;
        }
        // Shared out in another order partial refunds have other fractions; only what is left of all of them matters.
        if differing.iter().map(|it| it.asked - it.taken).sum::<i64>() != 0 {
            let parent = book.transfer(self.transfer_id)?;
            for Difference { claim, asked, taken } in differing {
                attention::add(book, claim, &attention::adopted_with_another_amount(asked, taken, &parent));
            }
        }
        Ok(answers)
    }
}

/// What a matched claim asks of the transfer, and what Stripe has taken for it.
struct Difference {
    claim: Uuid,
    asked: i64,
    taken: i64,
}

impl Adoption {
    /// What Stripe has taken for one refund by ratio is not asked for another: where more is asked of the transfer than all of
    /// them together may ask, those that Stripe was not asked for ask for less.
    fn ask_less(&self, book: &mut Book, differing: &mut Vec<Difference>) -> Result<(), LedgerError> {
        let Some(payment) = book.payment_by_ref(&self.payment_ref).cloned() else { return Ok(()) };
        let mut over = excess(book, &payment).get(&self.transfer_id).copied().unwrap_or_default();
        for row in book.reversals_of(self.transfer_id).into_iter().rev() {
            let call = book.call(row.id)?;
            let by_ratio = |it: &&claim::Model| it.shares.is_none() && it.status == ClaimStatus::Matched;
            let Some(claim) = book.claims.get(row.claim_id).filter(by_ratio).map(|it| it.id) else { continue };
            if over == 0 || row.status != ReversalStatus::Pending || call.requested_at.is_some() {
                continue;
            }
            let taken = row.amount - over.min(row.amount);
            over -= row.amount - taken;
            differing.push(Difference { claim, asked: row.amount, taken });
            let why = format!("Stripe has taken the rest of {} {} for another refund", row.amount, row.currency);
            let note = self.note.because(why);
            if taken > 0 {
                book.put_call(call::Model { version: call.version + 1, updated_at: book.now, ..call });
                book.keep_reversal(reversal::Model { amount: taken, ..row }, &note);
            } else {
                book.put_call(call.moved_to(CallState::CalledOff, book.now));
                book.move_reversal(row.id, ReversalEvent::CalledOff, &note, |_| {})?;
                book.settle_transfer(row.transfer_id, book.transfer(row.transfer_id)?.amount_reversed, &note)?;
            }
        }
        Ok(())
    }

    /// Nothing is changed where the answer is a conflict.
    fn adopt(
        &self,
        book: &mut Book,
        it: &UnknownReversal,
        differing: &mut Vec<Difference>,
    ) -> Result<Adopted, LedgerError> {
        let conflict = |problem: String| Err(LedgerError::Conflict(problem));
        let transfer = book.transfer(self.transfer_id)?;
        let is_it = |row: &reversal::Model| row.stripe_reversal_id.as_ref() == Some(&it.stripe_reversal_id);
        if book.reversals_of(transfer.id).iter().any(is_it) || transfer.adopted().contains_key(&it.stripe_reversal_id) {
            return Ok(Adopted::Known);
        }
        if !it.is_done {
            return conflict("Stripe is not done with it; run it again later".to_owned());
        }
        let left = transfer.amount - transfer.amount_reversed;
        if it.amount > left {
            return conflict(format!(
                "{} {} were reversed, and the ledger has no more than {left} of the transfer left: it counts on other \
                 reversals, see `clawback reconcile`",
                it.amount, transfer.currency
            ));
        }
        let note = self.note.because(format!("adopted {}: {}", it.stripe_reversal_id, self.note.reason));
        let note = note.with_balance_transaction(it.balance_transaction.clone());
        match &it.claim {
            Some(claim) => self.of_claim(book, &transfer, it, (claim, &note), differing),
            None => of_another(book, &transfer, it, &note),
        }
    }

    fn of_claim(
        &self,
        book: &mut Book,
        transfer: &transfer::Model,
        it: &UnknownReversal,
        (name, note): (&str, &Note),
        differing: &mut Vec<Difference>,
    ) -> Result<Adopted, LedgerError> {
        let is_it = |row: &&claim::Model| claim_name(row.source, &row.reference) == name;
        let of_payment = |row: &&claim::Model| payments_of(book, row).iter().any(|its| its.id == transfer.payment_id);
        let Some(claim) = book.claims.all().filter(is_it).find(of_payment).cloned() else {
            return Err(LedgerError::Conflict(format!(
                "{name} is not known as a refund or dispute of payment {}: have its provider report it again, or report it \
                 (POST /v1/refunds)",
                self.payment_ref
            )));
        };
        let known = book.live_reversal_of(claim.id, transfer.id).cloned();
        let asked = known.as_ref().map_or(0, |row| row.amount);
        let id = match known {
            None => add(book, &claim, transfer, it.amount, note)?,
            Some(row) if matches!(row.status, ReversalStatus::Reversed | ReversalStatus::Closed) => {
                return Err(LedgerError::Conflict(format!(
                    "reversal {} for {name} is {} already, so the seller paid twice: pay it back with a new transfer",
                    row.id, row.status
                )));
            }
            Some(row) if row.amount == it.amount => row.id,
            Some(row) => {
                let reason = format!("{}; {} {} instead of {asked}", note.reason, it.amount, row.currency);
                book.keep_reversal(reversal::Model { amount: it.amount, ..row.clone() }, &note.because(reason));
                row.id
            }
        };
        let call = book.call(id)?;
        reversal_done(book, &call, &it.stripe_reversal_id, false, note)?;
        if claim.takes_nothing() {
            let (row, parent) = (book.reversal(id)?, book.transfer(transfer.id)?);
            attention::add(book, claim.id, &attention::adopted_needlessly(&row, &call, &parent));
        } else if claim.status == ClaimStatus::Matched && asked != it.amount {
            differing.push(Difference { claim: claim.id, asked, taken: it.amount });
        }
        Ok(Adopted::AsReversal(id))
    }
}

/// Adds a reversal that Stripe has made for `claim`, which asks nothing of the transfer so far.
fn add(
    book: &mut Book,
    claim: &claim::Model,
    transfer: &transfer::Model,
    amount: i64,
    note: &Note,
) -> Result<Uuid, LedgerError> {
    let id = Uuid::now_v7();
    book.put_call(call::Model::new(id, CallKind::Reverse, CallState::Open, book.now, book.graces));
    let row = reversal::Model {
        id,
        claim_id: claim.id,
        transfer_id: transfer.id,
        seller_id: transfer.seller_id.clone(),
        amount,
        amount_closed: 0,
        balance_transaction: None,
        currency: transfer.currency.clone(),
        status: ReversalStatus::Pending,
        stripe_reversal_id: None,
        externally_reversed: false,
        created_at: book.now,
        updated_at: book.now,
    };
    book.add_reversal(row, note);
    await_reversal(book, transfer.id, note)?;
    Ok(id)
}

/// Another program's reversal belongs to no claim: it leaves that much less of the transfer.
fn of_another(
    book: &mut Book,
    transfer: &transfer::Model,
    it: &UnknownReversal,
    note: &Note,
) -> Result<Adopted, LedgerError> {
    if let Some(refund) = &it.source_refund {
        return Err(LedgerError::Conflict(format!(
            "Stripe made it together with refund {refund}: have Stripe send that refund's event again, or report the refund \
             with transfer_already_reversed (POST /v1/refunds)"
        )));
    }
    let mut adopted = transfer.adopted();
    adopted.insert(it.stripe_reversal_id.clone(), it.amount);
    let said = format!("{}; {} {} less are left", note.reason, it.amount, transfer.currency);
    let note = note.because(said);
    book.keep_transfer(transfer.clone(), |row| {
        row.reversed_before += it.amount;
        row.adopted = Some(serde_json::json!(adopted).to_string());
    });
    await_reversal(book, transfer.id, &note)?;
    book.settle_transfer(transfer.id, transfer.amount_reversed + it.amount, &note)?;
    Ok(Adopted::AsTakenBefore)
}

impl transfer::Model {
    /// Other programs' reversals that count in `reversed_before`, by Stripe's id.
    pub(in crate::ledger) fn adopted(&self) -> BTreeMap<String, i64> {
        self.adopted.as_deref().and_then(|adopted| serde_json::from_str(adopted).ok()).unwrap_or_default()
    }
}

/// `stripe:re_1`.
pub(super) fn parse_claim(name: &str) -> Option<(Source, &str)> {
    let (source, reference) = name.split_once(':')?;
    Some((Source::try_from_value(&source.to_owned()).ok()?, reference))
}
