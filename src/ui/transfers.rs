//! `/ui/transfers`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use sea_orm::Iterable;

use super::Ui;
use super::act::{Verb, button};
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{
    Head, ROWS, filters, input, matching, no_rows, own, pages, select, seller, status, story, table, time,
};
use super::input::{Asked, Csv, Currency, Yes};
use super::money::money;
use super::operations::bulk;
use super::page::{Page, Refusal};
use super::session::Session;
use crate::http::transfers::lines;
use crate::http::{Cursor, Order};
use crate::ledger::{FoundTransfer, OperationAction, TransferFilter, TransferStatus};
use crate::lines::Lines;

const PATH: &str = "/ui/transfers";
const HEADS: [Head; 8] = [
    Text("Transfer"),
    Text("Status"),
    Number("Amount"),
    Number("Taken back"),
    Text("Seller"),
    Text("Account"),
    Text("Payment"),
    Text("What happens"),
];

/// `GET /ui/transfers`.
pub(super) async fn list(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    Asked(mut fields): Asked,
) -> Result<Response, Refusal> {
    let filter = TransferFilter {
        status: fields.parsed("status"),
        currency: fields.parsed("currency").map(|Currency(code)| code),
        seller: fields.text("seller"),
        not_created: fields.parsed::<Yes>("not_created").is_some(),
        group: fields.text("group"),
        oldest: fields.parsed("order") == Some(Order::Oldest),
    };
    let order = if filter.oldest { "oldest" } else { "" };
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    let as_csv = fields.parsed::<Csv>("format").is_some();
    fields.done()?;
    if as_csv {
        return Ok(lines(&ui.ledger, filter, Lines::Csv).await?);
    }
    let ((found, next), count) =
        tokio::try_join!(ui.ledger.find_transfers(&filter, cursor, ROWS), ui.ledger.count_transfers(&filter))?;
    let chosen = filter.status.map(|status| status.to_string());
    let not_created = if filter.not_created { "yes" } else { "" };
    let in_url = [
        ("status", chosen.as_deref()),
        ("currency", filter.currency.as_deref()),
        ("seller", filter.seller.as_deref()),
        ("not_created", Some(not_created)),
        ("group", filter.group.as_deref()),
        ("order", Some(order)),
    ]
    .map(|(name, value)| (name, value.unwrap_or_default()));
    let choices = html! {
        (select("status", "Status", "any", TransferStatus::iter(), chosen.as_deref()))
        (input("currency", "Currency", filter.currency.as_deref()))
        (input("seller", "Seller", filter.seller.as_deref()))
        (select("not_created", "Could not be created", "any", ["yes"], Some(not_created)))
        @if let Some(group) = &filter.group { (input("group", "Group of failures", Some(group))) }
        (select("order", "Order", "newest first", ["oldest"], Some(order)))
    };
    let body = html! {
        (filters(PATH, &choices))
        (matching(PATH, &in_url, &count))
        @if filter.not_created && filter.status.is_none() {
            (bulk(&session, &[OperationAction::RetryTransfers], &in_url, found.is_empty()))
        }
        @if found.is_empty() { (no_rows(next.as_ref())) } @else { (rows(&session, "Transfers", &found)) }
        (pages(PATH, &in_url, cursor.is_none(), next))
    };
    Ok(Page::new("Transfers", body).into_response())
}

/// Transfers as a table.
pub(super) fn rows(session: &Session, caption: &str, found: &[FoundTransfer]) -> Markup {
    table(caption, &HEADS, &found.iter().map(|found| row(session, found)).collect::<Vec<_>>())
}

fn row(session: &Session, FoundTransfer { transfer, payment_ref }: &FoundTransfer) -> Markup {
    let is_failed_creation =
        transfer.status == TransferStatus::PermanentlyFailed && transfer.stripe_transfer_id.is_none();
    html! {
        th scope="row" {
            @if let Some(id) = &transfer.stripe_transfer_id { (story(id)) } @else { (own(transfer.id)) " (not created)" }
        }
        td { (status(transfer.status)) }
        td.number { (money(transfer.amount, &transfer.currency)) }
        td.number {
            @if transfer.amount_reversed > 0 { (money(transfer.amount_reversed, &transfer.currency)) }
            @if transfer.withheld > 0 { br; small { (money(transfer.withheld, &transfer.currency)) " withheld" } }
        }
        td { (seller(&transfer.seller_id)) }
        td { (transfer.destination) }
        td { (story(payment_ref)) }
        td {
            @if let Some(at) = transfer.next_retry_at { "next try " (time(at)) " " }
            @if transfer.stripe_transfer_id.is_none() && let Some(code) = &transfer.failure_code {
                small { (code) @if let Some(message) = &transfer.failure_message { ": " (message) } } " "
            }
            @if is_failed_creation { (button(session, Verb::Retry, &transfer.id.to_string())) }
        }
    }
}
