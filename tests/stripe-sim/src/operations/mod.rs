//! What can be asked of the API: an operation, its parameters checked, and then carried out on the ledger.
//!
//! Two steps, because Stripe saves an answer for an idempotency key only once the second has begun.

mod currency;
pub(crate) mod expand;
mod metadata;
mod objects;
mod paging;
mod params;
mod reversals;
mod transfers;

use serde_json::{Value, json};

use self::expand::Path;
use self::paging::Paging;
pub(crate) use self::params::Params;
pub(crate) use self::reversals::{reverse_from_elsewhere, reverse_with_fee, settle, short_of_balance};
pub(crate) use self::transfers::{add_transfer, looks_like, platform_short_of_balance, seed_transfers};
use crate::faults::Access;
use crate::ledger::PLATFORM;
use crate::shapes::ApiError;
use crate::state::State;

/// What the path and the method ask for.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    CreateTransfer {
        /// None: the request names none, and is refused.
        destination: Option<String>,
    },
    ListTransfers,
    GetTransfer {
        id: String,
    },
    CreateReversal {
        transfer: String,
    },
    ListReversals {
        transfer: String,
    },
    GetReversal {
        transfer: String,
        id: String,
    },
    GetPaymentIntent {
        id: String,
    },
    ListCharges,
    GetCharge {
        id: String,
    },
    ListRefunds {
        /// The charge that the path names.
        charge: Option<String>,
    },
    GetRefund {
        id: String,
    },
    ListDisputes,
    GetDispute {
        id: String,
    },
    ListEndpoints,
    GetAccount,
    /// The connected account that the header `Stripe-Account` names, or the platform.
    GetBalance {
        account: Option<String>,
    },
    Unknown,
}

/// An operation with its parameters, which are in order.
#[derive(Debug)]
pub(crate) struct Command {
    action: Action,
    expand: Vec<Path>,
}

#[derive(Debug)]
enum Action {
    CreateTransfer(transfers::NewTransfer),
    ListTransfers { paging: Paging, filter: transfers::Filter },
    GetTransfer { id: String },
    CreateReversal(reversals::NewReversal),
    ListReversals { transfer: String, paging: Paging },
    GetReversal { transfer: String, id: String },
    GetPaymentIntent { id: String },
    ListCharges { paging: Paging, filter: objects::Filter },
    GetCharge { id: String },
    ListRefunds { paging: Paging, filter: objects::Filter, url: String },
    GetRefund { id: String },
    ListDisputes { paging: Paging, filter: objects::Filter },
    GetDispute { id: String },
    ListEndpoints { paging: Paging },
    GetAccount,
    GetBalance { account: Option<String> },
}

impl Operation {
    /// What it is about, for faults: the object that the path names first, or for a transfer that is yet to be created,
    /// its destination.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            Operation::CreateTransfer { destination } => destination.as_deref(),
            Operation::ListRefunds { charge } => charge.as_deref(),
            Operation::GetBalance { account } => account.as_deref(),
            Operation::CreateReversal { transfer: id }
            | Operation::ListReversals { transfer: id }
            | Operation::GetReversal { transfer: id, .. }
            | Operation::GetTransfer { id }
            | Operation::GetPaymentIntent { id }
            | Operation::GetCharge { id }
            | Operation::GetRefund { id }
            | Operation::GetDispute { id } => Some(id),
            Operation::ListTransfers
            | Operation::ListCharges
            | Operation::ListDisputes
            | Operation::ListEndpoints
            | Operation::GetAccount
            | Operation::Unknown => None,
        }
    }

    pub(crate) fn access(&self) -> Access {
        match self {
            Operation::CreateTransfer { .. } | Operation::CreateReversal { .. } => Access::Writes,
            _ => Access::Reads,
        }
    }

    /// The type of what it answers with, for `expand[]`.
    fn object(&self) -> &'static str {
        match self {
            Operation::CreateTransfer { .. } | Operation::GetTransfer { .. } => "transfer",
            Operation::ListTransfers => "list of transfer",
            Operation::CreateReversal { .. } | Operation::GetReversal { .. } => "transfer_reversal",
            Operation::ListReversals { .. } => "list of transfer_reversal",
            Operation::GetPaymentIntent { .. } => "payment_intent",
            Operation::ListCharges => "list of charge",
            Operation::GetCharge { .. } => "charge",
            Operation::ListRefunds { .. } => "list of refund",
            Operation::GetRefund { .. } => "refund",
            Operation::ListDisputes => "list of dispute",
            Operation::GetDispute { .. } => "dispute",
            Operation::ListEndpoints => "list of webhook_endpoint",
            Operation::GetAccount => "account",
            Operation::GetBalance { .. } | Operation::Unknown => "balance",
        }
    }

    /// Checks the parameters. `url` is for the message about an unknown one, as in `GET: /v1/foo`.
    pub(crate) fn command(&self, mut params: Params, url: impl Fn() -> String) -> Result<Command, ApiError> {
        if matches!(self, Operation::Unknown) {
            let message = format!("Unrecognized request URL ({}). Please see https://stripe.com/docs.", url());
            return Err(ApiError::new(404, "invalid_request_error", message));
        }
        let expand = params.expand(self.object())?;
        let action = self.action(&mut params)?;
        params.nothing_else()?;
        Ok(Command { action, expand })
    }

    fn action(&self, params: &mut Params) -> Result<Action, ApiError> {
        Ok(match self.clone() {
            Operation::CreateTransfer { .. } => Action::CreateTransfer(transfers::NewTransfer::take(params)?),
            Operation::ListTransfers => {
                Action::ListTransfers { paging: Paging::take(params)?, filter: transfers::Filter::take(params)? }
            }
            Operation::GetTransfer { id } => Action::GetTransfer { id },
            Operation::CreateReversal { transfer } => {
                Action::CreateReversal(reversals::NewReversal::take(transfer, params)?)
            }
            Operation::ListReversals { transfer } => Action::ListReversals { transfer, paging: Paging::take(params)? },
            Operation::GetReversal { transfer, id } => Action::GetReversal { transfer, id },
            Operation::GetPaymentIntent { id } => Action::GetPaymentIntent { id },
            Operation::ListCharges => {
                Action::ListCharges { paging: Paging::take(params)?, filter: objects::Filter::of_charges(params)? }
            }
            Operation::GetCharge { id } => Action::GetCharge { id },
            Operation::ListRefunds { charge } => {
                let url = charge.as_ref().map_or("/v1/refunds".to_owned(), |id| format!("/v1/charges/{id}/refunds"));
                let filter = objects::Filter::of_charge(charge, params)?;
                Action::ListRefunds { paging: Paging::take(params)?, filter, url }
            }
            Operation::GetRefund { id } => Action::GetRefund { id },
            Operation::ListDisputes => Action::ListDisputes {
                paging: Paging::take(params)?,
                filter: objects::Filter::of_charge(None, params)?,
            },
            Operation::GetDispute { id } => Action::GetDispute { id },
            Operation::ListEndpoints => Action::ListEndpoints { paging: Paging::take(params)? },
            Operation::GetAccount => Action::GetAccount,
            Operation::GetBalance { account } => Action::GetBalance { account },
            Operation::Unknown => Action::GetBalance { account: None },
        })
    }
}

impl Command {
    /// Carries it out. `key` and `status` are noted on the reversal that it may create.
    pub(crate) fn execute(self, state: &mut State, key: Option<&str>, status: Option<&str>) -> Result<Value, ApiError> {
        let mut value = match self.action {
            Action::CreateTransfer(new) => transfers::create(state, new),
            Action::ListTransfers { paging, filter } => transfers::list(state, &paging, &filter),
            Action::GetTransfer { id } => transfers::get(state, &id),
            Action::CreateReversal(new) => reversals::create(state, new, key, status),
            Action::ListReversals { transfer, paging } => reversals::list(state, &transfer, &paging),
            Action::GetReversal { transfer, id } => reversals::get(state, &transfer, &id),
            Action::GetPaymentIntent { id } => objects::payment_intent(state, &id),
            Action::ListCharges { paging, filter } => objects::charges(state, &paging, &filter),
            Action::GetCharge { id } => objects::charge(state, &id),
            Action::ListRefunds { paging, filter, url } => objects::refunds(state, &paging, &filter, &url),
            Action::GetRefund { id } => objects::refund(state, &id),
            Action::ListDisputes { paging, filter } => objects::disputes(state, &paging, &filter),
            Action::GetDispute { id } => objects::dispute(state, &id),
            Action::ListEndpoints { paging } => objects::endpoints(state, &paging),
            Action::GetAccount => Ok(json!({
                "id": PLATFORM, "object": "account", "charges_enabled": true, "payouts_enabled": true,
                "country": "DE", "default_currency": "eur", "details_submitted": true, "metadata": {},
            })),
            Action::GetBalance { account } => objects::balance(state, account.as_deref()),
        }?;
        expand::apply(state, &mut value, &self.expand);
        Ok(value)
    }
}

/// The currency in lower case; an error says what is wrong with it.
pub(crate) fn check_currency(given: &str) -> Result<String, String> {
    currency::check(given).map_err(|_| format!("currency must be one that Stripe supports (got {given:?})"))
}

/// A new object's id: the prefix and 24 characters, as Stripe's are.
pub(crate) fn new_id(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}{}", &random[..24])
}
