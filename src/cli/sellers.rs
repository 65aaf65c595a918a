//! `clawback sellers`: what each seller was paid, what was taken back, and what it owes.

use std::io::{Result as IoResult, Write};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::claims::age;
use super::operator::{self, Output, one_of};
use super::output::{Format, Listing, gather, json, wrap};
use super::reversals::rows;
use super::terminal::{plain, print};
use crate::config::Config;
use crate::ledger::{SellerDebt, SellerView, now};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        clawback sellers list --debt open\n  \
                        clawback sellers show s1\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) enum Sellers {
    /// List sellers, in the order of their ids
    List(List),
    /// Show one seller with its reversals
    Show(Show),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Amounts are in minor units of their currency, and are never added up over currencies. What is \
                        waiting for balance or failed permanently is part of what is owed.\n\n\
                        --format json prints {\"sellers\": […]}; each one is as GET /v1/sellers shows it. With csv or \
                        ndjson all that match are printed, one line for each seller and currency, unless --limit says \
                        how many sellers.\n\n\
                        Examples:\n  \
                        clawback sellers list --debt failed\n  \
                        clawback sellers list --after s1 --format json | jq '.sellers[].seller_id'\n  \
                        clawback sellers list --debt open --format csv > owed.csv\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct List {
    /// Only sellers with such debts
    #[arg(long, value_parser = one_of::<SellerDebt>())]
    debt: Option<SellerDebt>,
    /// Only sellers whose id comes after this one
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints the seller as GET /v1/sellers/{id} shows it.\n\n\
                        Example:\n  \
                        clawback sellers show s1\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage.")]
pub(super) struct Show {
    /// The marketplace's id
    id: String,
    /// At most so many reversals, the newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    #[command(flatten)]
    output: Output,
}

impl Sellers {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let mut out = Vec::new();
        match self {
            Self::List(List { debt, after, listing }) => {
                let next =
                    |cursor: Option<String>, limit| ledger.find_sellers(debt, cursor.or_else(|| after.clone()), limit);
                if listing.print_lines(SellerView::into_lines, next).await? {
                    return Ok(());
                }
                let found = gather(listing.limit(), next).await?;
                match listing.is_json() {
                    true => json(&mut out, &json!({"sellers": found}))?,
                    false => table(&mut out, &found, listing.limit())?,
                }
            }
            Self::Show(Show { id, limit, output }) => {
                let Some(seller) = ledger.seller(&id).await? else {
                    bail!(
                        "no seller has the id {id:?}: the marketplace's id is meant; `clawback sellers list` shows them"
                    );
                };
                let (reversals, next) = ledger.reversals_of_seller(&id, None, limit).await?;
                match output.format {
                    Format::Table => {
                        money(&mut out, &seller)?;
                        if !reversals.is_empty() {
                            writeln!(out)?;
                            rows(&mut out, &reversals)?;
                        }
                        if next.is_some() {
                            writeln!(out, "The newest {limit}; more with --limit.")?;
                        }
                    }
                    Format::Json => {
                        let SellerView { seller_id, currencies } = seller;
                        let all = json!({"seller_id": seller_id, "currencies": currencies, "reversals": reversals,
                            "next_cursor": next});
                        json(&mut out, &all)?;
                    }
                }
            }
        }
        Ok(print(&out)?)
    }
}

fn table(out: &mut impl Write, found: &[SellerView], limit: u64) -> IoResult<()> {
    for seller in found {
        money(out, seller)?;
    }
    match found.last() {
        None => writeln!(out, "No sellers."),
        Some(last) if found.len() as u64 == limit => wrap(
            out,
            "",
            "",
            &format!("The first {limit}; more with --limit, or with --after {}", plain(&last.seller_id)),
        ),
        Some(_) => Ok(()),
    }
}

fn money(out: &mut impl Write, seller: &SellerView) -> IoResult<()> {
    wrap(out, "", "  ", &plain(&seller.seller_id))?;
    for of in &seller.currencies {
        let mut said = format!("paid {}, taken back {}, owed {}", of.paid, of.taken_back, of.owed);
        let parts = [("waiting for balance", of.waiting_for_balance), ("failed permanently", of.failed)];
        let parts =
            parts.into_iter().filter(|(_, amount)| *amount > 0).map(|(name, amount)| format!("{amount} {name}"));
        let parts: Vec<String> = parts.collect();
        if !parts.is_empty() {
            said += &format!(" (of it {})", parts.join(", "));
        }
        if let Some(oldest) = of.oldest_open {
            said += &format!(", the oldest for {}", age((now() - oldest).num_seconds()));
        }
        for (name, amount) in [("settled elsewhere", of.closed), ("not paid, since no transfer was created", of.unpaid)]
        {
            if amount > 0 {
                said += &format!("; {amount} {name}");
            }
        }
        wrap(out, &format!("  {}: ", of.currency), "       ", &said)?;
    }
    Ok(())
}
