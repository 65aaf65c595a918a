//! `/v1/payments`: the marketplace registers payments with their transfers, and reads them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::extract::{self, Id};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{NewPayment, PaymentView};

/// Register a payment
///
/// With its transfers to sellers. Registering the same payment again changes nothing and answers 200. Refunds that arrived
/// before their payment are matched now.
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
    security(("operate" = [])),
)]
pub(crate) async fn register(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<NewPayment>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let registered = state.ledger.register_payment(body).await?;
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(registered.payment)))
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
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<PaymentView>, Problem> {
    let payment = state.ledger.payment(&id).await?;
    payment.map(Json).ok_or_else(|| unknown("payment"))
}
