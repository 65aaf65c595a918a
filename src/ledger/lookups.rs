//! Look-ups: what Stripe is asked because an event left it out, or because nobody registered a payment. Each has a call of
//! the same id, and takes the way of every call.

use uuid::Uuid;

use super::book::Book;
use super::calls::Call;
use super::claims::{UnknownReversal, waits_for};
use super::events::EventContent;
use super::history::Note;
use super::input::NewPayment;
use super::schema::{claim, lookup};
use super::status::{CallKind, CallState};

words! {
    /// What a look-up is about.
    pub enum Subject {
        /// The refunds of a charge (`ch_…`): its event listed none.
        RefundsOfCharge,
        /// A refund (`re_…`): a thin event named it.
        Refund,
        /// A dispute (`du_…`): a thin event named it.
        Dispute,
        /// The transfers of a payment (`pi_…`, `ch_…`) that nobody registered.
        Payment,
        /// The payment of a transfer (`tr_…`) that was created.
        Transfer,
    }
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What an event with the same objects would report.
    Content(EventContent),
    /// A payment, or why there is none to register.
    Payment {
        /// Every name of it that is known.
        names: Vec<String>,
        /// What became of it.
        payment: FoundPayment,
    },
}

/// A payment, as far as Stripe shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundPayment {
    /// Its transfers, without any doubt.
    Transfers {
        /// As it would have been registered.
        new: NewPayment,
        /// Stripe's ids of the transfers of which others have reversed something. Only a registered one's is known.
        reversed: Vec<String>,
        /// What Clawback itself has reversed of them, and a ledger that was lost has forgotten.
        earlier: Earlier,
    },
    /// It has no transfers, in words.
    None(String),
    /// It can't be told what belongs to it. Why, in words.
    Unclear(String),
}

/// What Clawback had reversed of a payment before its ledger was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// The claims that it reversed for, by name and as Stripe has them now, in that order.
    pub claims: Vec<(String, EventContent)>,
    /// The reversals, oldest first, each with Stripe's id of its transfer.
    pub reversals: Vec<(String, UnknownReversal)>,
}

/// Who asks, and whether again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) subject: Subject,
    pub(super) reference: &'a str,
    /// Something has happened since: what was found before does not count.
    pub(super) again: bool,
    /// The inbox row of the event that asks.
    pub(super) event: Option<Uuid>,
    pub(super) traceparent: Option<&'a str>,
}

/// Starts a look-up, or opens it again.
pub(super) fn ask(book: &mut Book, question: Question<'_>) {
    let Question { subject, reference, again, event, traceparent } = question;
    let known = book.lookups.all().find(|row| (row.subject, row.reference.as_str()) == (subject, reference)).cloned();
    let Some(row) = known else {
        let id = Uuid::now_v7();
        let reference = reference.to_owned();
        let note = Note::new(ACTOR, format!("Stripe will be asked: {subject} {reference}"));
        let (created_at, updated_at) = (book.now, book.now);
        book.add_lookup(
            lookup::Model { id, subject, reference, event_id: event, result: None, created_at, updated_at },
            &note,
        );
        let call = Call::new(id, CallKind::LookUp, CallState::Open, book.now, book.graces);
        book.enqueue(&call, traceparent);
        book.put_call(call);
        return;
    };
    let Some(call) = book.calls.get(row.id).filter(|_| again).cloned() else { return };
    if call.state == CallState::Open {
        // A worker may have read Stripe before this happened. Its report no longer fits, and it reads again.
        book.put_call(Call { version: call.version + 1, updated_at: book.now, ..call });
        return;
    }
    let call = call.replayed(book.now, book.graces.of(CallKind::LookUp));
    book.enqueue(&call, traceparent);
    book.move_call(call, &Note::new(ACTOR, format!("Stripe will be asked again: {subject} {reference}")));
}

/// Who the history names.
const ACTOR: &str = "ingress";

/// Calls off the look-up of a payment that was registered meanwhile.
pub(super) fn call_off(book: &mut Book, payment_ref: &str, actor: &str) {
    let is_it = |row: &&lookup::Model| row.subject == Subject::Payment && row.reference == payment_ref;
    let Some(id) = book.lookups.all().find(is_it).map(|row| row.id) else { return };
    let Some(call) = book.calls.get(id).filter(|call| call.state == CallState::Open) else { return };
    let call = call.moved_to(CallState::CalledOff, book.now);
    book.move_call(call, &Note::new(actor, "the payment was registered meanwhile"));
}

/// The claims under any of these names that wait for their payment.
pub(super) fn waiting(book: &Book, names: &[String]) -> Vec<claim::Model> {
    let waits = |row: &&claim::Model| names.iter().any(|name| waits_for(book, row, name));
    book.claims.all().filter(waits).cloned().collect()
}
