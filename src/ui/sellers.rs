//! `/ui/sellers`: the sellers, and one seller's money, currency by currency, with its transfers.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use sea_orm::Iterable;

use super::Ui;
use super::guard::Visitor;
use super::html::Head::{Number, Text};
use super::html::{Head, ROWS, ago, as_csv, filters, pages, query, search, select, seller, table};
use super::input::{Asked, Csv, Fields};
use super::money::money;
use super::operations;
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use super::transfers::rows;
use crate::http::sellers::lines;
use crate::http::{Cursor, TextCursor};
use crate::ledger::{OperationAction, SellerDebt, SellerMoney, SellerView, TransferFilter};
use crate::lines::Lines;

const PATH: &str = "/ui/sellers";
const HEADS: [Head; 10] = [
    Text("Currency"),
    Number("Paid"),
    Number("Taken back"),
    Number("Owed"),
    Number("Of it waiting for balance"),
    Number("Of it failed"),
    Number("Settled elsewhere"),
    Number("Not paid"),
    Number("Transfers"),
    Text("Oldest debt"),
];

/// `GET /ui/sellers?debt=`, and `?id=`.
pub(super) async fn show(
    State(ui): State<Ui>,
    Visitor(session): Visitor,
    Asked(mut fields): Asked,
) -> Result<Response, Refusal> {
    match fields.text("id") {
        Some(id) => Ok(one(&ui, &session, id, fields).await.into_response()),
        None => list(&ui, fields).await,
    }
}

async fn list(ui: &Ui, mut fields: Fields) -> Result<Response, Refusal> {
    let debt: Option<SellerDebt> = fields.parsed("debt");
    let cursor = fields.parsed("cursor").map(|TextCursor(id)| id);
    let wants_csv = fields.parsed::<Csv>("format").is_some();
    fields.done()?;
    if wants_csv {
        return Ok(lines(&ui.ledger, debt, Lines::Csv).await?);
    }
    let is_first = cursor.is_none();
    let (found, next) = ui.ledger.find_sellers(debt, cursor, ROWS).await?;
    let debt = debt.map(|debt| debt.to_string());
    let of_seller = |of: &SellerView| {
        let id = of.seller_id.clone();
        let row = move |money| html! { th scope="row" { (seller(&id)) } (row(money)) };
        of.currencies.iter().map(row).collect::<Vec<_>>()
    };
    let rows: Vec<Markup> = found.iter().flat_map(of_seller).collect();
    let heads: Vec<Head> = [Text("Seller")].into_iter().chain(HEADS).collect();
    let in_url = [("debt", debt.as_deref().unwrap_or_default())];
    let body = html! {
        (search(PATH, "Seller, by the marketplace's id", None))
        (filters(PATH, &select("debt", "Debts", "any", SellerDebt::iter(), debt.as_deref())))
        p.help { (as_csv(PATH, &in_url)) }
        @if rows.is_empty() { p { "Nothing matches." } } @else { (table("Sellers, in the order of their ids", &heads, &rows)) }
        (pages(PATH, &in_url, is_first, next))
    };
    Ok(Page::new("Sellers", body).into_response())
}

async fn one(ui: &Ui, session: &Session, id: String, mut fields: Fields) -> Answer {
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    fields.done()?;
    let of = ui.ledger.seller(&id).await?;
    let of = of.ok_or_else(|| Refusal::not_found(format!("No transfer to a seller {id:?} is registered.")))?;
    let filter = TransferFilter { seller: Some(id.clone()), ..TransferFilter::default() };
    let (found, next) = ui.ledger.find_transfers(&filter, cursor, ROWS).await?;
    let money: Vec<Markup> = of.currencies.iter().map(row).collect();
    let list = |status| format!("/ui/reversals{}", query(&[("seller", &id), ("status", status)]));
    let acts = [
        (OperationAction::ReplayReversals, of.currencies.iter().any(|of| of.failed > 0)),
        (OperationAction::RetryTransfers, of.currencies.iter().any(|of| of.unpaid > 0)),
    ];
    let body = html! {
        (search(PATH, "Seller, by the marketplace's id", Some(&id)))
        (table("Money, by currency", &HEADS, &money))
        ul {
            li { a href=(list("pending")) { "What is being taken back" } }
            li { a href=(list("permanently_failed")) { "What failed and is owed" } }
            li { a href=(list("reversed")) { "What is back" } }
        }
        @for (action, _) in acts.iter().filter(|(_, is_possible)| *is_possible) {
            (operations::button(session, *action, &[("seller", &id)], "all of this seller that failed"))
        }
        (rows(session, "Transfers", &found))
        (pages(PATH, &[("id", &id)], cursor.is_none(), next))
    };
    Ok(Page::new(format!("Seller {id}"), body))
}

fn row(of: &SellerMoney) -> Markup {
    let sums = [of.paid, of.taken_back, of.owed, of.waiting_for_balance, of.failed, of.closed, of.unpaid];
    html! {
        td { (of.currency.to_uppercase()) }
        @for sum in sums { td.number { @if sum == 0 { "–" } @else { (money(sum, &of.currency)) } } }
        td.number { (of.transfers) }
        td { @if let Some(oldest) = of.oldest_open { (ago(oldest)) } }
    }
}
