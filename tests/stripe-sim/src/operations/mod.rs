//! What can be asked of the API: an operation, its parameters checked, and then carried out on the ledger.
//!
//! Two steps, because Stripe saves an answer for an idempotency key only once the second has begun.

mod paging;
mod params;
mod reversals;
mod transfers;

use serde_json::{Value, json};

use self::paging::Paging;
pub(crate) use self::params::Params;
pub(crate) use self::reversals::{reverse_from_elsewhere, settle, short_of_balance};
pub(crate) use self::transfers::{add_transfer, platform_short_of_balance};
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
    GetAccount,
    GetBalance,
    Unknown,
}

/// An operation with its parameters, which are in order.
#[derive(Debug)]
pub(crate) enum Command {
    CreateTransfer(transfers::NewTransfer),
    ListTransfers { paging: Paging, filter: transfers::Filter },
    GetTransfer { id: String },
    CreateReversal(reversals::NewReversal),
    ListReversals { transfer: String, paging: Paging },
    GetReversal { transfer: String, id: String },
    GetAccount,
    GetBalance,
}

impl Operation {
    /// What it is about, for faults: the transfer, or for one that is yet to be created, its destination.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            Operation::CreateTransfer { destination } => destination.as_deref(),
            Operation::GetTransfer { id } => Some(id),
            Operation::CreateReversal { transfer }
            | Operation::ListReversals { transfer }
            | Operation::GetReversal { transfer, .. } => Some(transfer),
            Operation::ListTransfers | Operation::GetAccount | Operation::GetBalance | Operation::Unknown => None,
        }
    }

    pub(crate) fn access(&self) -> Access {
        match self {
            Operation::CreateTransfer { .. } | Operation::CreateReversal { .. } => Access::Writes,
            _ => Access::Reads,
        }
    }

    /// Checks the parameters. `url` is for the message about an unknown one, as in `GET: /v1/foo`.
    pub(crate) fn command(self, mut params: Params, url: &str) -> Result<Command, ApiError> {
        let command = match self {
            Operation::CreateTransfer { .. } => Command::CreateTransfer(transfers::NewTransfer::take(&mut params)?),
            Operation::ListTransfers => Command::ListTransfers {
                paging: Paging::take(&mut params)?,
                filter: transfers::Filter::take(&mut params)?,
            },
            Operation::GetTransfer { id } => {
                params.expand(&["reversals"])?;
                Command::GetTransfer { id }
            }
            Operation::CreateReversal { transfer } => {
                Command::CreateReversal(reversals::NewReversal::take(transfer, &mut params)?)
            }
            Operation::ListReversals { transfer } => {
                Command::ListReversals { transfer, paging: Paging::take(&mut params)? }
            }
            Operation::GetReversal { transfer, id } => Command::GetReversal { transfer, id },
            Operation::GetAccount => Command::GetAccount,
            Operation::GetBalance => Command::GetBalance,
            Operation::Unknown => {
                let message = format!("Unrecognized request URL ({url}). Please see https://stripe.com/docs.");
                return Err(ApiError::new(404, "invalid_request_error", message));
            }
        };
        params.nothing_else()?;
        Ok(command)
    }
}

impl Command {
    /// Carries it out. `key` and `status` are noted on the reversal that it may create.
    pub(crate) fn execute(self, state: &mut State, key: Option<&str>, status: Option<&str>) -> Result<Value, ApiError> {
        match self {
            Command::CreateTransfer(new) => transfers::create(state, new),
            Command::ListTransfers { paging, filter } => transfers::list(state, &paging, &filter),
            Command::GetTransfer { id } => transfers::get(state, &id),
            Command::CreateReversal(new) => reversals::create(state, new, key, status),
            Command::ListReversals { transfer, paging } => reversals::list(state, &transfer, &paging),
            Command::GetReversal { transfer, id } => reversals::get(state, &transfer, &id),
            Command::GetAccount => Ok(json!({
                "id": PLATFORM, "object": "account", "charges_enabled": true, "payouts_enabled": true,
                "country": "DE", "default_currency": "eur", "details_submitted": true, "metadata": {},
            })),
            Command::GetBalance => Ok(json!({
                "object": "balance", "available": [{"amount": 0, "currency": "eur"}], "livemode": false,
                "pending": [{"amount": 0, "currency": "eur"}],
            })),
        }
    }
}

/// A new object's id: the prefix and 24 characters, as Stripe's are.
pub(crate) fn new_id(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}{}", &random[..24])
}
