//! Takes in what a provider reports of a dispute. The end is the same in whatever order, and however often, the events come:
//! the furthest stage counts, and what is taken follows from it and from `DISPUTE_POLICY`.

mod ending;
mod stage;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::attention;
use super::matching::{self, By, Match, bring_together};
use super::record;
use super::taken::Taken;
use crate::ledger::LedgerError;
use crate::ledger::book::{Book, Reads};
use crate::ledger::events::{ClaimKind, Source};
use crate::ledger::history::Note;
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;

pub(super) use self::ending::review_ended;
pub use self::stage::{DisputeEvent, DisputePolicy, DisputeStage};

/// What a report of a dispute is taken in with.
pub(super) struct Intake<'a> {
    pub(super) source: Source,
    pub(super) by: By<'a>,
}

/// The rows that [`Intake::take`] looks at.
pub(super) fn reads(source: Source, event: &DisputeEvent, reads: &mut Reads) {
    reads.claims.insert((source, event.dispute_ref.clone()));
    reads.names.extend(event.names().map(ToOwned::to_owned));
}

impl Intake<'_> {
    pub(super) fn take(&self, book: &mut Book, event: &DisputeEvent) -> Result<Taken, LedgerError> {
        let known = find(book, self.source, &event.dispute_ref);
        if !book.holds(event.names().chain(known.iter().flat_map(claim::Model::names))) {
            return Err(LedgerError::Retry);
        }
        let Some(known) = known else { return self.first_report(book, event) };
        let (id, problem) = (known.id, contradiction(&known, event));
        let known = with_names(book, known, event);
        let taken = self.reported_again(book, known, event.stage)?;
        // Afterwards: what is matched needs no attention for what was before.
        if let Some(problem) = problem {
            tracing::warn!(dispute_ref = event.dispute_ref, problem, "contradictory reports of a dispute");
            attention::add(book, id, &problem);
        }
        say_what_came_back(book, id, event);
        Ok(taken)
    }

    fn first_report(&self, book: &mut Book, event: &DisputeEvent) -> Result<Taken, LedgerError> {
        let claim = self.unrecorded(book, event);
        let reason = claim.status_reason.clone().unwrap_or_default();
        record::add(book, &claim, self.by.actor);
        let taken = if claim.status == ClaimStatus::Unmatched {
            bring_together(book, &claim, self.by)?.into()
        } else {
            untaken(claim.status, reason)
        };
        say_what_came_back(book, claim.id, event);
        Ok(taken)
    }

    fn reported_again(
        &self,
        book: &mut Book,
        known: claim::Model,
        reported: DisputeStage,
    ) -> Result<Taken, LedgerError> {
        let stage = known.stage.map_or(reported, |stage| stage.max(reported));
        match known.status {
            ClaimStatus::Failed => Ok(Taken::Known),
            // The operator has decided, and nothing is new.
            ClaimStatus::Held if known.acknowledged_at.is_some() && known.stage == Some(stage) => Ok(Taken::Known),
            _ if stage.is_over() => self.end(book, known, stage),
            ClaimStatus::NothingToReverse if known.lookup_id.is_none() => self.move_on(book, known, stage),
            ClaimStatus::Held => self.move_on(book, known, stage),
            ClaimStatus::Unmatched => {
                let claim = self.at_stage(book, known, stage);
                match bring_together(book, &claim, self.by)? {
                    Match::Unmatched => Ok(Taken::Known),
                    found => Ok(found.into()),
                }
            }
            // Its payment has no transfers at Stripe, whatever becomes of the dispute.
            ClaimStatus::NothingToReverse | ClaimStatus::Matched | ClaimStatus::Conflicting => {
                self.at_stage(book, known, stage);
                Ok(Taken::Known)
            }
        }
    }

    /// The claim that `event` reports, if it is not known.
    fn unrecorded(&self, book: &Book, event: &DisputeEvent) -> claim::Model {
        let (status, reason) = Self::untaken(book, event.stage, event.created);
        claim::Model {
            id: Uuid::now_v7(),
            kind: ClaimKind::Dispute,
            source: self.source,
            account: String::new(),
            reference: event.dispute_ref.clone(),
            payment_ref: event.payment_ref.clone(),
            charge_ref: event.charge_ref.clone(),
            payment_id: None,
            amount: event.amount,
            currency: event.currency.clone(),
            status,
            status_reason: Some(reason),
            shares: None,
            signed_at: Some(book.now),
            signed_shares: None,
            captured: None,
            provider_reversal: None,
            reversed_transfer: None,
            provider_updated_at: None,
            lookup_id: None,
            failed_at: event.stage.is_over().then_some(book.now),
            attention: None,
            acknowledged_at: None,
            stage: Some(event.stage),
            provider_created_at: event.created,
            created_at: book.now,
            matched_at: None,
        }
    }

    /// The status of a claim at `stage`, opened at `created`, that nothing was taken for yet, with the reason.
    fn untaken(book: &Book, stage: DisputeStage, created: Option<DateTime<Utc>>) -> (ClaimStatus, String) {
        let (status, reason) = stage.untaken(book.policy.disputes);
        match book.policy.too_old(created).filter(|_| status == ClaimStatus::Unmatched) {
            Some(too_old) => (ClaimStatus::Held, too_old),
            None => (status, reason),
        }
    }

    /// A claim that nothing was taken for is now at `stage`.
    fn move_on(&self, book: &mut Book, claim: claim::Model, stage: DisputeStage) -> Result<Taken, LedgerError> {
        let (status, reason) = Self::untaken(book, stage, claim.provider_created_at);
        if (status, Some(stage)) == (claim.status, claim.stage) {
            return Ok(Taken::Known);
        }
        let is_taken = status == ClaimStatus::Unmatched;
        let what = if is_taken { format!("the dispute is {stage}") } else { reason.clone() };
        let claim = book.move_claim(claim, status, &Note::new(self.by.actor, what), |row| {
            row.stage = Some(stage);
            row.status_reason = Some(reason.clone());
        });
        if is_taken { Ok(bring_together(book, &claim, self.by)?.into()) } else { Ok(untaken(status, reason)) }
    }

    fn end(&self, book: &mut Book, claim: claim::Model, stage: DisputeStage) -> Result<Taken, LedgerError> {
        let dispute_ref = claim.reference.clone();
        let withdrawn = ending::end(book, claim, stage, self.by)?;
        tracing::info!(dispute_ref, %stage, called_off = withdrawn.called_off, "a dispute is over");
        Ok(Taken::Failed(withdrawn))
    }

    fn at_stage(&self, book: &mut Book, claim: claim::Model, stage: DisputeStage) -> claim::Model {
        if claim.stage == Some(stage) {
            return claim;
        }
        let claim = claim::Model { stage: Some(stage), ..claim };
        let note = Note::new(self.by.actor, format!("the dispute is {stage}"));
        book.remark(&claim.kind.to_string(), claim.id, claim.status, &note);
        book.keep_claim(claim.clone());
        claim
    }
}

/// A dispute takes for all of its amount, also where a part of that came back.
fn say_what_came_back(book: &mut Book, id: Uuid, event: &DisputeEvent) {
    let Some(row) = book.claims.get(id).filter(|row| row.status != ClaimStatus::Failed).cloned() else { return };
    if event.reinstated > 0 {
        let DisputeEvent { reinstated, amount, currency, .. } = event;
        let payment = row.payment_id.and_then(|id| book.payments.get(id));
        let too_much = payment.map(|payment| matching::owed_for(book, payment, *reinstated));
        let now = attention::reinstated_in_part(*reinstated, too_much, *amount, currency);
        let before = row.attention.as_deref().and_then(attention::without_reinstatement);
        book.keep_claim(claim::Model { attention: Some(attention::with(before, &now)), ..row });
    }
}

/// What became of a claim that nothing is taken for.
fn untaken(status: ClaimStatus, reason: String) -> Taken {
    if status == ClaimStatus::Held { Taken::Held(reason) } else { Taken::NoEffect(reason) }
}

fn find(book: &Book, source: Source, reference: &str) -> Option<claim::Model> {
    let key = (ClaimKind::Dispute, source, reference);
    book.claims.all().find(|row| (row.kind, row.source, row.reference.as_str()) == key).cloned()
}

/// Why what is reported now can't be right beside what is known. The first report counts.
fn contradiction(claim: &claim::Model, event: &DisputeEvent) -> Option<String> {
    let (known, reported) = ((claim.amount, &claim.currency), (event.amount, &event.currency));
    let problem = || {
        format!(
            "dispute {} was first reported with {} {}, and then with {} {}: the first counts here, compare it with Stripe",
            claim.reference, known.0, known.1, reported.0, reported.1
        )
    };
    (known != reported && !claim.stage.is_some_and(DisputeStage::is_over)).then(problem)
}

/// The claim with the names that `event` adds: the first report may have known the charge alone.
fn with_names(book: &mut Book, claim: claim::Model, event: &DisputeEvent) -> claim::Model {
    let adds = claim.charge_ref.as_ref() == Some(&claim.payment_ref) && event.charge_ref == claim.charge_ref;
    if !adds || event.payment_ref == claim.payment_ref {
        return claim;
    }
    let claim = claim::Model { payment_ref: event.payment_ref.clone(), ..claim };
    book.keep_claim(claim.clone());
    claim
}
