//! `/v1/payments`: the marketplace registers what was paid out of a payment, and looks at what became of it.
//!
//! Handlers only; what a payment may look like is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::problem::Problem;
use super::{ApiState, extract, id, unknown};
use crate::ledger::{NewPayment, PaymentView};

/// Register a payment
///
/// Tells what was paid out of it to sellers. The very same payment may be registered again, so that a lost answer can be
/// asked for again. A refund that came before its payment is matched now.
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
        (status = 200, description = "The very same payment was registered before.", body = PaymentView),
        (status = 409, description = "It contradicts what is registered."),
    ),
    security(("operate" = [])),
)]
pub(crate) async fn register(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let registered = state.ledger.register_payment(extract::json(&headers, body)?).await?;
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
    params(("payment_ref" = String, Path, description = "As it was registered.", example = "pi_1")),
    responses((status = 200, description = "The payment.", body = PaymentView)),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<PaymentView>, Problem> {
    let payment = state.ledger.payment(&id(path, "payment")?).await?;
    payment.map(Json).ok_or_else(|| unknown("payment"))
}
