//! A look-up: reads Stripe until it is known what the subject means, and reports that. Each request has a turn of its own.

mod earlier;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Caller, Interrupted, failure};
use crate::ledger::{
    EventContent, Failure, Found, FoundPayment, LookUpTarget, Note, Postponement, RefundEvent, Remainder, Retries,
    Subject, Task, TryOutcome, after, now,
};
use crate::stripe::{Charge, Meaning, Page, PaymentIntent, Report, Transfer};
use crate::worker::{create, discovery};

/// Pages of 100 that are read of one list.
const PAGES: usize = 10;

/// Why a reading ends early.
enum Stop {
    Interrupted(Interrupted),
    /// Stripe's answer, or that there was none.
    Answer(Box<Report>),
    /// Stripe can answer, but it can't be told what is right: the payment's claims need attention.
    Unclear(String),
    /// Nothing was listed, which means this. Lists can lag: it is read again before that counts.
    Nothing(Box<Found>, String),
    /// Less was listed than there is. It is read again until all is.
    Short(String),
    /// It can't be used, and will not change.
    Unusable(String),
}

impl From<Interrupted> for Stop {
    fn from(interrupted: Interrupted) -> Self {
        Self::Interrupted(interrupted)
    }
}

impl From<Report> for Stop {
    fn from(report: Report) -> Self {
        Self::Answer(Box::new(report))
    }
}

/// One reading, and what it has learnt on its way.
struct Reading<'a> {
    caller: &'a Caller,
    task: &'a Task,
    /// Every name of the payment.
    names: Vec<String>,
    /// Of the last request.
    request_id: Option<String>,
}

impl Caller {
    /// Reads what the look-up is about, and reports what that means.
    pub(super) async fn look_up(&self, task: &Task, target: &LookUpTarget) -> Result<Task, Interrupted> {
        let names = vec![target.reference.clone()];
        let mut reading = Reading { caller: self, task, names, request_id: None };
        let read = reading.read(target).await;
        let Reading { names, request_id, .. } = reading;
        let found = match read {
            Ok(found) => found,
            Err(Stop::Nothing(found, _)) if self.has_settled(task.call.absent_since) => *found,
            Err(Stop::Short(why)) if self.has_settled(task.call.absent_since) => {
                return self.read_again(task, failure("not_listed", &why), request_id).await;
            }
            Err(Stop::Nothing(_, why) | Stop::Short(why)) => {
                let why = failure("not_found_yet", &why);
                return self.wait(task, Remainder::Absent, self.timing.settling, why, request_id).await;
            }
            Err(Stop::Unclear(why)) => Found::Payment { names, payment: FoundPayment::Unclear(why) },
            Err(Stop::Unusable(why)) => return self.fail(task, failure("unusable", &why), request_id).await,
            Err(Stop::Interrupted(interrupted)) => return Err(interrupted),
            Err(Stop::Answer(report)) => match unknown_payment(target, &report) {
                Some(why) => Found::Payment { names, payment: FoundPayment::Unclear(why) },
                None => return self.without_an_answer(task, *report).await,
            },
        };
        let note = Note::new(super::ACTOR, format!("read {} {}", target.subject, target.reference));
        let outcome = TryOutcome::Found(Box::new(found));
        let done = self.ledger.report(task, outcome, note.with_request_id(request_id)).await?;
        tracing::info!(subject = %target.subject, reference = target.reference, "looked up");
        Ok(done)
    }

    /// Reads again later, unless the retries are used up.
    async fn read_again(&self, task: &Task, why: Failure, request_id: Option<String>) -> Result<Task, Interrupted> {
        let Some(delay) = self.policy.next(u32::try_from(task.call.attempts).unwrap_or(u32::MAX)) else {
            return self.fail(task, why, request_id).await;
        };
        let reason = format!("{}; reading again", why.message);
        let how = Postponement {
            until: after(now(), delay),
            retries: Retries::Used,
            remainder: Remainder::Absent,
            failure: why,
        };
        self.report(task, TryOutcome::Later(how), &reason, request_id).await
    }

    /// A key that may not read this may well reverse transfers: only this look-up fails.
    async fn without_an_answer(&self, task: &Task, report: Report) -> Result<Task, Interrupted> {
        if report.http_status == Some(403) {
            let message = format!(
                "STRIPE_API_KEY may not read this ({}); let the restricted key read charges, payment intents, refunds, \
                 disputes and transfers, and replay",
                report.message
            );
            return self.fail(task, failure("more_permissions_required", &message), report.request_id).await;
        }
        self.follow(task.clone(), report).await
    }
}

/// That Stripe does not know a payment is an answer: its claims need attention.
fn unknown_payment(target: &LookUpTarget, report: &Report) -> Option<String> {
    let is_about_a_payment = matches!(target.subject, Subject::Payment | Subject::Transfer);
    (is_about_a_payment && report.meaning == Meaning::NoSuchTransfer)
        .then(|| format!("Stripe does not know it: {}", report.message))
}

impl Reading<'_> {
    async fn read(&mut self, target: &LookUpTarget) -> Result<Found, Stop> {
        let id = target.reference.as_str();
        match target.subject {
            Subject::RefundsOfCharge => self.refunds(id).await,
            Subject::Refund | Subject::Dispute => {
                self.claim(target.subject == Subject::Refund, id).await.map(Found::Content)
            }
            Subject::Payment => self.payment(id).await,
            Subject::Transfer => self.transfer(id).await,
        }
    }

    async fn refunds(&mut self, id: &str) -> Result<Found, Stop> {
        // Before the list: what the charge says is refunded must be in a list that is read later.
        let shown: Value = self.object(&["charges", id]).await?;
        let charge = Charge::deserialize(&shown).map_err(|error| Stop::Unusable(format!("charge {id}: {error}")))?;
        let mut objects: Vec<Value> = self.list(&["refunds"], &[("charge", id)]).await?;
        // As the charge counts them: one that failed is listed, and given back to nobody.
        let stands = |refund: &&Value| !matches!(refund["status"].as_str(), Some("failed" | "canceled"));
        let listed: i64 = objects.iter().filter(stands).filter_map(|refund| refund["amount"].as_i64()).sum();
        let mut refunds: Vec<RefundEvent> = Vec::new();
        // The list is newest first.
        for object in objects.iter_mut().rev() {
            object["charge"] = shown.clone();
            if let EventContent::Refunds(found) = (self.caller.parse)(object).map_err(Stop::Unusable)? {
                refunds.extend(found);
            }
        }
        if listed < charge.amount_refunded {
            let why = format!("{listed} of {} that charge {id} refunded are listed", charge.amount_refunded);
            return Err(Stop::Short(why));
        }
        Ok(Found::Content(EventContent::Refunds(refunds)))
    }

    async fn payment(&mut self, id: &str) -> Result<Found, Stop> {
        if !id.starts_with("pi_") {
            let charge = self.object(&["charges", id]).await?;
            return self.transfers_of(charge, None).await;
        }
        let intent: PaymentIntent = self.object(&["payment_intents", id]).await?;
        let Some(charge) = intent.latest_charge else {
            return Err(Stop::Unclear(format!("payment intent {id} has no charge")));
        };
        let charge = self.object(&["charges", &charge]).await?;
        self.transfers_of(charge, None).await
    }

    async fn transfer(&mut self, id: &str) -> Result<Found, Stop> {
        let transfer: Transfer = self.object(&["transfers", id]).await?;
        let nothing = |reason: String| Ok(Found::Content(EventContent::Irrelevant { reason }));
        if transfer.name().is_some() {
            return nothing(format!("Clawback has created {id}"));
        }
        if let Some(charge) = &transfer.source_transaction {
            let charge = self.object(&["charges", charge]).await?;
            return self.transfers_of(charge, Some(transfer)).await;
        }
        let Some(group) = &transfer.transfer_group else {
            return nothing(format!("{id} has no transfer group and no source transaction"));
        };
        let mut charges: Vec<Charge> = self.list(&["charges"], &[("transfer_group", group)]).await?;
        charges.retain(Charge::may_pay);
        match charges.as_slice() {
            [charge] => self.transfers_of(charge.clone(), Some(transfer)).await,
            [] => nothing(format!("no charge has the transfer group {group}")),
            several => {
                several.iter().for_each(|charge| self.learn_names(charge));
                Err(Stop::Unclear(format!("{id} may be of each of the charges that have the transfer group {group}")))
            }
        }
    }

    /// What the charge's transfers are. `known` is one of them, which lists may lack yet.
    async fn transfers_of(&mut self, charge: Charge, known: Option<Transfer>) -> Result<Found, Stop> {
        self.learn_names(&charge);
        let mut transfers = match &charge.transfer {
            Some(id) if known.as_ref().is_none_or(|known| known.id != *id) => {
                vec![self.object(&["transfers", id]).await?]
            }
            _ => Vec::new(),
        };
        let mut charges = Vec::new();
        if let Some(group) = &charge.transfer_group {
            let of_group = [("transfer_group", group.as_str())];
            charges = self.list(&["charges"], &of_group).await?;
            transfers.extend(self.list(&["transfers"], &of_group).await?);
        }
        self.leave_out_ours(&mut transfers).await?;
        transfers.extend(known);
        let names = self.names.iter().filter(|name| !name.starts_with("tr_")).cloned().collect();
        let taken: BTreeMap<String, i64> = transfers.iter().map(|of| (of.id.clone(), of.amount_reversed)).collect();
        let payment = match discovery::transfers_of(&charge, &charges, transfers) {
            FoundPayment::Transfers { new, reversed, .. } => {
                let (reversed, earlier) = self.earlier(reversed, &taken).await?;
                FoundPayment::Transfers { new, reversed, earlier }
            }
            unclear => unclear,
        };
        let nothing = match &payment {
            FoundPayment::None(why) => Some(why.clone()),
            FoundPayment::Transfers { .. } | FoundPayment::Unclear(_) => None,
        };
        let found = Found::Payment { names, payment };
        nothing.map_or(Ok(found.clone()), |why| Err(Stop::Nothing(Box::new(found), why)))
    }

    /// What Clawback is creating is registered, though not yet under Stripe's id.
    async fn leave_out_ours(&self, transfers: &mut Vec<Transfer>) -> Result<(), Stop> {
        let payments: BTreeSet<&str> =
            transfers.iter().filter_map(Transfer::name).map(|(payment, _)| payment).collect();
        let mut ours = Vec::new();
        for payment in payments {
            let registered = self.caller.ledger.registered_transfers(payment).await.map_err(Interrupted::from)?;
            let unknown = registered.into_iter().filter(|row| row.stripe_transfer_id.is_none());
            let is_one = |of: &&Transfer| unknown.clone().any(|row| create::is_named(of, payment, &row));
            ours.extend(transfers.iter().filter(is_one).map(|of| of.id.clone()));
        }
        transfers.retain(|of| !ours.contains(&of.id));
        Ok(())
    }

    fn learn_names(&mut self, charge: &Charge) {
        for name in charge.payment_intent.iter().chain([&charge.id]) {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    async fn object<T: DeserializeOwned>(&mut self, path: &[&str]) -> Result<T, Stop> {
        self.object_with(path, &[]).await
    }

    async fn object_with<T: DeserializeOwned>(&mut self, path: &[&str], query: &[(&str, &str)]) -> Result<T, Stop> {
        self.caller.turn(self.task).await?;
        let (object, request_id) = self.caller.stripe.read(path, query).await?;
        self.caller.limiter.raise();
        self.request_id = request_id;
        Ok(object)
    }

    /// All pages, or an error: a part of a list would look like the whole.
    async fn list<T: DeserializeOwned + Listed>(
        &mut self,
        path: &[&str],
        filter: &[(&str, &str)],
    ) -> Result<Vec<T>, Stop> {
        let mut items: Vec<T> = Vec::new();
        for _ in 0..PAGES {
            self.caller.turn(self.task).await?;
            let after = items.last().map(|item| item.id().to_owned());
            let (page, request_id) = self.caller.stripe.page(path, filter, after.as_deref()).await?;
            self.caller.limiter.raise();
            self.request_id = request_id;
            let Page { data, has_more } = page;
            items.extend(data);
            if !has_more {
                return Ok(items);
            }
        }
        let (of, value) = filter.first().copied().unwrap_or_default();
        Err(Stop::Unusable(format!(
            "more than {} objects of {of} {value} at Stripe: too many to look through",
            items.len()
        )))
    }
}

/// An object that lists have.
trait Listed {
    fn id(&self) -> &str;
}

impl Listed for Value {
    fn id(&self) -> &str {
        self["id"].as_str().unwrap_or_default()
    }
}

impl Listed for Charge {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for Transfer {
    fn id(&self) -> &str {
        &self.id
    }
}
