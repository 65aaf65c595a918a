//! What must hold in every state of the model, and what must be reached at all.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

use stateright::{Model, Property};

use super::bounds::Bounds;
use super::world::World;
use crate::ledger::ReversalStatus;

pub(super) const NEVER_TOO_MUCH: &str = "Stripe takes no more than is owed, and nothing twice";
pub(super) const NOT_CALLED_OFF: &str = "Stripe executes nothing that was called off";
pub(super) const ONLY_IF_STRIPE_HAS_IT: &str = "the ledger says reversed only if Stripe has it";
pub(super) const ENDS: &str =
    "once nothing goes wrong any more it ends: taken, called off, or failed permanently for all to see";

/// Longer than any way to the end.
const LONGEST_WAY: usize = 400;

pub(super) fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(NEVER_TOO_MUCH, never_too_much),
        Property::always(NOT_CALLED_OFF, |_, world: &World| !world.executed_though_called_off),
        Property::always(ONLY_IF_STRIPE_HAS_IT, only_if_stripe_has_it),
        Property::always(ENDS, ends_well),
        Property::sometimes("all is taken", |_, world: &World| all_are(world, ReversalStatus::Reversed)),
        Property::sometimes("called off", |_, world: &World| any_is(world, ReversalStatus::CalledOff)),
        Property::sometimes("failed permanently", |_, world: &World| any_is(world, ReversalStatus::PermanentlyFailed)),
        Property::sometimes("a second key", |_, world: &World| world.rows.calls.iter().any(|call| call.generation > 0)),
        Property::sometimes("a burnt key", |_, world: &World| {
            world.rows.calls.iter().any(|call| call.key_burnt_at.is_some())
        }),
        Property::sometimes("looked twice", |_, world: &World| {
            world.rows.calls.iter().any(|call| call.absent_since.is_some_and(|at| at < world.now))
        }),
    ]
}

fn any_is(world: &World, status: ReversalStatus) -> bool {
    world.rows.reversals.iter().any(|row| row.status == status)
}

fn all_are(world: &World, status: ReversalStatus) -> bool {
    !world.rows.reversals.is_empty() && world.rows.reversals.iter().all(|row| row.status == status)
}

/// By what the refunds ask of each transfer, written by hand in the bounds: nothing of the product decides this.
fn never_too_much(bounds: &Bounds, world: &World) -> bool {
    let within = |position: usize| {
        let owed: i64 = bounds.refunds.iter().map(|(_, shares)| shares[position]).sum();
        world.stripe.taken(&format!("tr_{position}")) <= owed
    };
    let mut seen = HashSet::new();
    let once = world.stripe.reversals.iter().all(|it| seen.insert((&it.transfer, &it.claim)));
    once && (0..bounds.transfers.len()).all(within)
}

fn only_if_stripe_has_it(_: &Bounds, world: &World) -> bool {
    let reversed = world.rows.reversals.iter().filter(|row| row.status == ReversalStatus::Reversed);
    let mut ids = HashSet::new();
    reversed.into_iter().all(|row| {
        let at_stripe = world.stripe.reversals.iter().find(|it| Some(&it.id) == row.stripe_reversal_id.as_ref());
        let transfer = world.rows.transfers.iter().find(|transfer| transfer.id == row.transfer_id);
        let transfer = transfer.and_then(|transfer| transfer.stripe_transfer_id.as_ref());
        at_stripe.is_some_and(|it| it.amount == row.amount && Some(&it.transfer) == transfer && ids.insert(&it.id))
    })
}

/// States from which the calm way is known to end well.
static END_WELL: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(Mutex::default);

/// Goes the calm way to its end, or to a state from which that is known.
fn ends_well(bounds: &Bounds, world: &World) -> bool {
    let mut way = Vec::new();
    let mut world = world.clone();
    let mut reached = false;
    while way.len() < LONGEST_WAY {
        let print = fingerprint(bounds, &world);
        if END_WELL.lock().unwrap_or_else(PoisonError::into_inner).contains(&print) {
            reached = true;
            break;
        }
        way.push(print);
        let Some(next) = bounds.calm(&world) else {
            reached = is_a_good_end(bounds, &world);
            break;
        };
        let Some(after) = bounds.next_state(&world, next) else { break };
        world = after;
    }
    if reached {
        END_WELL.lock().unwrap_or_else(PoisonError::into_inner).extend(way);
    }
    reached
}

fn fingerprint(bounds: &Bounds, world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    (format!("{bounds:?}"), world).hash(&mut hasher);
    hasher.finish()
}

/// Ledger and Stripe agree, nothing is pending, and each transfer gave what the refunds that stand ask of it, unless it is on
/// record as failed permanently.
fn is_a_good_end(bounds: &Bounds, world: &World) -> bool {
    let rows = &world.rows;
    let agrees = rows.reversals.iter().all(|row| {
        let claim = rows.claims.iter().find(|claim| claim.id == row.claim_id);
        let name = claim.map(|claim| format!("{}:{}", claim.source, claim.reference)).unwrap_or_default();
        let transfer = rows.transfers.iter().find(|transfer| transfer.id == row.transfer_id);
        let transfer = transfer.and_then(|transfer| transfer.stripe_transfer_id.clone()).unwrap_or_default();
        let at_stripe = world.stripe.reversals.iter().any(|it| it.transfer == transfer && it.claim == name);
        match row.status {
            ReversalStatus::Pending => false,
            ReversalStatus::Reversed => true,
            // What the ledger had forgotten when its refund failed, `reconcile` finds.
            ReversalStatus::CalledOff => !at_stripe || world.lost,
            ReversalStatus::PermanentlyFailed | ReversalStatus::Closed => true,
        }
    });
    let standing = bounds.refunds.len() - usize::from(bounds.last_refund_fails);
    let enough = (0..bounds.transfers.len()).all(|position| {
        let owed: i64 = bounds.refunds[..standing].iter().map(|(_, shares)| shares[position]).sum();
        let failed = rows.reversals.iter().filter(|row| row.status == ReversalStatus::PermanentlyFailed);
        let failed: i64 =
            failed.filter(|row| row.transfer_id == rows.transfers[position].id).map(|row| row.amount).sum();
        world.stripe.taken(&format!("tr_{position}")) + failed >= owed
    });
    agrees && enough
}
