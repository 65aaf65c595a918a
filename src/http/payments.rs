//! `/v1/payments`: the marketplace registers payments with their transfers, amends and reads them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::extract::{self, Id};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{CorrectedPayment, NewPayment, NewTransfers, PaymentView, Registered};

/// Register a payment
///
/// With its transfers to sellers. Registering the same payment again, in whatever order of transfers, changes nothing and
/// answers 200. Refunds that arrived before their payment are matched now. A transfer without `stripe_transfer_id` is
/// refused unless it has `"create": true`: Clawback then creates it and PAYS the seller. Transfers in the payment's
/// currency that add up to more than its amount are refused unless `allow_excess` is true.
#[utoipa::path(
    post,
    path = "/v1/payments",
    tag = "payments",
    operation_id = "registerPayment",
    request_body(content = NewPayment, example = json!({
        "payment_ref": "pi_1", "amount": 10_000, "currency": "eur",
        "transfers": [{
            "seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 9_000, "currency": "eur",
        }],
    })),
    responses(
        (status = 201, description = "Registered.", body = PaymentView),
        (status = 200, description = "The same payment is registered already.", body = PaymentView),
        (status = 409, description = "Another payment is registered under this reference, or a transfer belongs to another payment."),
    ),
)]
pub(crate) async fn register(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<NewPayment>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    Ok(answer(state.ledger.register_payment(body).await?))
}

fn answer(registered: Registered) -> (StatusCode, Json<PaymentView>) {
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(registered.payment))
}

/// Add transfers to a payment
///
/// For transfers that were made later, when the goods were delivered, say. They owe their part of the refunds that were
/// shared out by ratio before; what those have asked of the other transfers stays. Adding the same transfers again changes
/// nothing and answers 200.
#[utoipa::path(
    post,
    path = "/v1/payments/{payment_ref}/transfers",
    tag = "payments",
    operation_id = "addTransfers",
    params(("payment_ref" = String, Path, description = "The reference it was registered under, or Clawback's id.", example = "pi_1")),
    request_body(content = NewTransfers, example = json!({"transfers": [{
        "seller_id": "s2", "stripe_transfer_id": "tr_2", "destination": "acct_2", "amount": 1_000, "currency": "eur",
    }]})),
    responses(
        (status = 201, description = "Added.", body = PaymentView),
        (status = 200, description = "All of them are registered already.", body = PaymentView),
        (status = 409, description = "A transfer is registered otherwise, or belongs to another payment."),
    ),
)]
pub(crate) async fn add_transfers(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<NewTransfers>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    Ok(answer(state.ledger.add_transfers(&id, body).await?))
}

/// Correct a payment
///
/// Replaces its amount, its currency and its transfers, as long as no refund was shared out over them. A transfer that
/// Clawback creates has to stay as it is. A refund that did not fit before is tried again.
#[utoipa::path(
    put,
    path = "/v1/payments/{payment_ref}",
    tag = "payments",
    operation_id = "correctPayment",
    params(("payment_ref" = String, Path, description = "The reference it was registered under, or Clawback's id.", example = "pi_1")),
    request_body(content = CorrectedPayment, example = json!({
        "amount": 10_000, "currency": "eur",
        "transfers": [{
            "seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 9_000, "currency": "eur",
        }],
    })),
    responses(
        (status = 200, description = "It is registered like this now.", body = PaymentView),
        (status = 409, description = "A refund was shared out already, Clawback creates a transfer that would change, or a transfer belongs to another payment."),
    ),
)]
pub(crate) async fn correct(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<CorrectedPayment>,
) -> Result<Json<PaymentView>, Problem> {
    Ok(Json(state.ledger.correct_payment(&id, body).await?.payment))
}

/// A payment
///
/// With its transfers and their reversals.
#[utoipa::path(
    get,
    path = "/v1/payments/{payment_ref}",
    tag = "payments",
    operation_id = "getPayment",
    params(("payment_ref" = String, Path, description = "The reference it was registered under, or Clawback's id.", example = "pi_1")),
    responses((status = 200, description = "The payment.", body = PaymentView)),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<PaymentView>, Problem> {
    let payment = state.ledger.payment(&id).await?;
    payment.map(Json).ok_or_else(|| unknown("payment", id))
}
