//! `/ui/sellers`: a seller's transfers, and what it owes.

use axum::extract::State;
use maud::html;

use super::Ui;
use super::failed;
use super::guard::Visitor;
use super::html::{ROWS, cut, pages, query, search};
use super::input::Asked;
use super::page::{Answer, Page, Refusal};
use super::transfers::rows;
use crate::http::{Cursor, Rights};
use crate::ledger::{CallKind, TransferFilter};

const PATH: &str = "/ui/sellers";

/// `GET /ui/sellers?id=`.
pub(super) async fn show(State(ui): State<Ui>, Visitor(session): Visitor, Asked(mut fields): Asked) -> Answer {
    let (id, cursor) = (fields.text("id"), fields.parsed("cursor").map(|Cursor(id)| id));
    fields.done()?;
    let choice = search(PATH, "Seller, by the marketplace's id", id.as_deref());
    let Some(id) = id else { return Ok(Page::new("Sellers", choice)) };
    let filter = TransferFilter { seller: Some(id.clone()), ..TransferFilter::default() };
    let mut found = ui.ledger.find_transfers(&filter, cursor, ROWS + 1).await?;
    let next = cut(&mut found, |found| found.transfer.id);
    if found.is_empty() && cursor.is_none() {
        return Err(Refusal::not_found(format!("No transfer to a seller {id:?} is registered.")));
    }
    let of = |status| format!("/ui/reversals{}", query(&[("seller", &id), ("status", status)]));
    let body = html! {
        (choice)
        ul {
            li { a href=(of("pending")) { "What is being taken back" } }
            li { a href=(of("permanently_failed")) { "What failed and is owed" } }
            li { a href=(of("reversed")) { "What is back" } }
            @if session.rights == Rights::Operate {
                li { a href=(failed::link(CallKind::Reverse, None, Some(&id))) { "Replay all that failed" } }
            }
        }
        (rows(&session, "Transfers", &found))
        (pages(PATH, &[("id", &id)], cursor.is_none(), next))
    };
    Ok(Page::new(format!("Seller {id}"), body))
}
