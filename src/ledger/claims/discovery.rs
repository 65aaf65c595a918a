//! A claim whose payment nobody registered: Stripe is asked for the payment's transfers.

use super::matching::By;
use crate::ledger::book::Book;
use crate::ledger::events::Source;
use crate::ledger::lookups::{Question, Subject, ask};
use crate::ledger::schema::{claim, lookup};
use crate::ledger::status::CallState;

/// How the ids of what Stripe can be asked about begin: payment intents, charges, and payments that are no card's.
const AT_STRIPE: [&str; 3] = ["pi_", "ch_", "py_"];

/// Starts the look-up of the claim's payment. What was found before does not count for a claim of this transaction, nor for
/// one that did not wait then.
pub(super) fn look_for_payment(book: &mut Book, claim: &claim::Model, by: By<'_>) {
    let mut at_stripe = claim.names().filter(|name| AT_STRIPE.iter().any(|prefix| name.starts_with(prefix)));
    let reference = at_stripe.next().filter(|_| book.policy.discovery && claim.source == Source::Stripe);
    let Some(reference) = reference else { return };
    let is_it = |row: &&lookup::Model| row.subject == Subject::Payment && row.reference == reference;
    let found = book.lookups.all().find(is_it).and_then(|row| book.calls.get(row.id));
    let was_missed = claim.attention.is_none() && found.is_some_and(|call| call.state != CallState::Open);
    let again = was_missed || claim.created_at == book.now;
    let By { event, traceparent, .. } = by;
    ask(book, Question { subject: Subject::Payment, reference, again, event, traceparent });
}
