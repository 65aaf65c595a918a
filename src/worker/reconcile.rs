//! Looks at what Stripe really has of a reversal, over all pages. Reads only; called where an answer left that open.

use uuid::Uuid;

use crate::stripe::{Client, Report, TransferReversal};

/// What Stripe's list shows.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// The reversal that carries our id in its metadata: one that Stripe has ended only where there is no other.
    pub(super) ours: Option<TransferReversal>,
    /// The newest reversal that carries no id of ours at all.
    pub(super) newest_foreign: Option<String>,
    /// The list accounts for everything that the transfer says is reversed. Lists can lag.
    pub(super) complete: bool,
    /// Stripe's `Request-Id` of the list.
    pub(super) request_id: Option<String>,
}

/// Reads the transfer, then its list: what the transfer says is reversed must be in a list that is read later.
pub(super) async fn look(stripe: &Client, transfer_id: &str, reversal_id: Uuid) -> Result<Sight, Report> {
    let transfer = stripe.get_transfer(transfer_id).await?;
    let list = stripe.list_reversals(transfer_id).await?;
    let (list, request_id) = (list.items, list.request_id);
    let complete = transfer.is_explained_by(&list);
    let newest_foreign = list.iter().find(|reversal| reversal.reversal_id().is_none()).map(|found| found.id.clone());
    let ours = list.into_iter().filter(|reversal| reversal.reversal_id() == Some(reversal_id));
    let ours = ours.max_by_key(TransferReversal::counts);
    Ok(Sight { ours, newest_foreign, complete, request_id })
}
