//! What buyers, banks and the platform do outside the part of the API that is simulated: pay, get refunds, dispute.

mod captures;
mod disputes;
mod payments;
mod refunds;

pub(crate) use self::captures::{capture, void};
pub use self::disputes::NewDispute;
pub(crate) use self::disputes::{move_dispute, open_dispute, reinstate};
pub use self::payments::{Capture, NewPayment, PaymentTransfer};
pub(crate) use self::payments::{pay, transfer_of};
pub use self::refunds::NewRefund;
pub(crate) use self::refunds::{move_refund, refer, refund};

use chrono::{DateTime, TimeDelta, Utc};

use crate::operations::{looks_like, new_id};
use crate::state::State;

/// The id that is asked for, which must look like one of Stripe's with one of the prefixes and be free, or a new one.
fn choose_id(asked: Option<String>, prefixes: &[&str], is_taken: impl Fn(&str) -> bool) -> Result<String, String> {
    let Some(id) = asked else { return Ok(new_id(prefixes.first().copied().unwrap_or_default())) };
    if !prefixes.iter().any(|prefix| looks_like(&id, prefix)) {
        return Err(format!("id must be {} and letters, digits or _ (got {id:?})", prefixes.join(" or ")));
    }
    if is_taken(&id) {
        return Err(format!("id must be new (got {id:?})"));
    }
    Ok(id)
}

/// So many seconds before now.
fn ago(state: &State, seconds: u32) -> DateTime<Utc> {
    state.clock.now() - TimeDelta::seconds(seconds.into())
}
