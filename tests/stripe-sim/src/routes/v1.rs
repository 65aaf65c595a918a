//! The routes of Stripe's API. They only name the operation; every request takes the same way through the exchange.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::API_VERSION;
use crate::exchange::{Call, Reply, exchange};
use crate::operations::{Operation, Params};
use crate::state::Shared;

/// On a response: cut the connection instead of sending it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut;

type Id = Path<String>;
type Ids = Path<(String, String)>;

pub(crate) fn router() -> Router<Arc<Shared>> {
    let create_transfer = |incoming: Incoming| {
        let destination = Params::parse(&incoming.body).peek("destination").map(str::to_owned);
        incoming.run(Operation::CreateTransfer { destination })
    };
    let reversals = get(|Path(transfer): Id, incoming: Incoming| {
        incoming.about([transfer], |[transfer]| Operation::ListReversals { transfer })
    })
    .post(|Path(transfer): Id, incoming: Incoming| {
        incoming.about([transfer], |[transfer]| Operation::CreateReversal { transfer })
    });
    let get_reversal = |Path((transfer, id)): Ids, incoming: Incoming| {
        incoming.about([transfer, id], |[transfer, id]| Operation::GetReversal { transfer, id })
    };
    let refunds_of_charge = |Path(charge): Id, incoming: Incoming| {
        incoming.about([charge], |[charge]| Operation::ListRefunds { charge: Some(charge) })
    };
    let one = |operation: fn(String) -> Operation| {
        get(move |Path(id): Id, incoming: Incoming| incoming.about([id], move |[id]| operation(id)))
    };
    let plain = |operation: Operation| get(move |incoming: Incoming| incoming.run(operation.clone()));
    let balance = |incoming: Incoming| {
        let account = incoming.headers.get("stripe-account").and_then(|account| account.to_str().ok());
        let account = account.map(str::to_owned);
        incoming.run(Operation::GetBalance { account })
    };
    Router::new()
        .route("/v1/transfers", plain(Operation::ListTransfers).post(create_transfer))
        .route("/v1/transfers/{id}", one(|id| Operation::GetTransfer { id }))
        .route("/v1/transfers/{id}/reversals", reversals)
        .route("/v1/transfers/{id}/reversals/{reversal}", get(get_reversal))
        .route("/v1/payment_intents/{id}", one(|id| Operation::GetPaymentIntent { id }))
        .route("/v1/charges", plain(Operation::ListCharges))
        .route("/v1/charges/{id}", one(|id| Operation::GetCharge { id }))
        .route("/v1/charges/{id}/refunds", get(refunds_of_charge))
        .route("/v1/refunds", plain(Operation::ListRefunds { charge: None }))
        .route("/v1/refunds/{id}", one(|id| Operation::GetRefund { id }))
        .route("/v1/disputes", plain(Operation::ListDisputes))
        .route("/v1/disputes/{id}", one(|id| Operation::GetDispute { id }))
        .route("/v1/webhook_endpoints", plain(Operation::ListEndpoints))
        .route("/v1/account", plain(Operation::GetAccount))
        .route("/v1/balance", get(balance))
        .fallback(|incoming: Incoming| incoming.run(Operation::Unknown))
        .method_not_allowed_fallback(|incoming: Incoming| incoming.run(Operation::Unknown))
}

/// Everything of a request but what its path says.
struct Incoming {
    shared: Arc<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl FromRequest<Arc<Shared>> for Incoming {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Incoming, Response> {
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        let body = Bytes::from_request(request, shared).await.map_err(IntoResponse::into_response)?;
        Ok(Incoming { shared: Arc::clone(shared), method, uri, headers, body })
    }
}

impl Incoming {
    /// Runs an operation on objects; an id that can't be one of Stripe's matches no route there.
    async fn about<const N: usize>(
        self,
        ids: [String; N],
        operation: impl FnOnce([String; N]) -> Operation,
    ) -> Response {
        let can_be_id = |id: &String| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let operation = if ids.iter().all(can_be_id) { operation(ids) } else { Operation::Unknown };
        self.run(operation).await
    }

    async fn run(self, operation: Operation) -> Response {
        let Incoming { shared, method, uri, headers, body } = self;
        let query = uri.query().unwrap_or_default();
        let call = Call::new(operation, method.as_str(), uri.path(), query, &headers, body);
        let request_id = call.id.clone();
        let Reply { answer, replayed, at, .. } = exchange(shared, call).await;
        let Some(answer) = answer else {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(Cut);
            return response;
        };
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let out = response.headers_mut();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::try_from(value) {
                out.insert(HeaderName::from_static(name), value);
            }
        };
        set("content-type", answer.content_type);
        set("date", &at.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        set("request-id", &request_id);
        let echo = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        set("stripe-version", echo("stripe-version").unwrap_or(API_VERSION));
        if let Some(key) = echo("idempotency-key") {
            set("idempotency-key", key);
            set("original-request", &answer.original_request);
        }
        if replayed {
            set("idempotent-replayed", "true");
        }
        for (name, value) in &answer.headers {
            set(name, value);
        }
        response
    }
}
