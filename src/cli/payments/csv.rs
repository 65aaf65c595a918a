//! Payments from CSV: one transfer a row, the rows of a payment one after the other.
//!
//! Rows are read line by line: no field of a payment can hold a line break, and so a quote that is left open spoils one
//! line and not the rest of the file. A row that can't be read may belong to the payment before it or to the one after it,
//! so that neither is registered without it.

use std::io::{BufRead, Result};

use super::item::{BadLine, Item, Sourced};
use super::lines::{Line, Lines};
use crate::ledger::{FieldProblem, LedgerError, MAX_TRANSFERS, NewPayment, NewTransfer};

/// Many times the longest row that can be good.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// The columns, in the order of [`Row`]'s fields; in a file they may be in any.
pub(super) const COLUMNS: [&str; 8] = [
    "payment_ref",
    "payment_amount",
    "payment_currency",
    "seller_id",
    "stripe_transfer_id",
    "destination",
    "amount",
    "currency",
];
const TRANSFER_ID: &str = COLUMNS[4];

/// Reads payments row by row.
pub(super) struct Csv<R> {
    rows: Rows<R>,
    create_missing: bool,
    /// The row that ended the payment before it.
    ahead: Option<Row>,
    /// The last line that could not be read, if nothing could since.
    unreadable: Option<u64>,
}

/// The rows of a file, and where its columns are.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    /// For each of [`COLUMNS`], its place in the file.
    places: [usize; COLUMNS.len()],
}

/// A row's fields, in the order of [`COLUMNS`].
pub(super) struct Row {
    pub(super) line: u64,
    fields: [String; COLUMNS.len()],
}

impl Row {
    pub(super) fn payment_ref(&self) -> &str {
        &self.fields[0]
    }
}

impl<R: BufRead> Rows<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is wrong with it, or what reading said.
    pub(super) fn new(input: R) -> anyhow::Result<Self> {
        let mut lines = Lines::new(input, MAX_LINE_BYTES);
        let header = match lines.next()? {
            None => anyhow::bail!("the file is empty; its first line must be the header: {}", COLUMNS.join(",")),
            Some((line, Line::Bad(problem))) => anyhow::bail!("line {line} {problem}"),
            Some((line, Line::Text(text))) => {
                split(text).map_err(|problem| anyhow::anyhow!("line {line} (the header) {problem}"))?
            }
        };
        Ok(Self { lines, places: places(&header)? })
    }

    /// The next row, or a line that is none; and nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<std::result::Result<Row, BadLine>>> {
        let Some((line, text)) = self.lines.next()? else { return Ok(None) };
        let fields = match text {
            Line::Text(text) => split(text),
            Line::Bad(problem) => Err(problem),
        };
        let row = fields.and_then(|mut fields| {
            if fields.len() != COLUMNS.len() {
                return Err(format!("has {} fields; allowed: {}, as the header", fields.len(), COLUMNS.len()));
            }
            Ok(Row { line, fields: self.places.map(|place| std::mem::take(&mut fields[place])) })
        });
        Ok(Some(row.map_err(|problem| BadLine::new(line, None, problem))))
    }
}

/// Where each of [`COLUMNS`] is.
fn places(header: &[String]) -> anyhow::Result<[usize; COLUMNS.len()]> {
    let allowed = format!("the header must be these columns, in any order, separated by commas: {}", COLUMNS.join(","));
    if let Some(unknown) = header.iter().find(|name| !COLUMNS.contains(&name.as_str())) {
        anyhow::bail!("the header has the column {unknown:?}; {allowed}");
    }
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let mut found = header.iter().enumerate().filter(|(_, name)| *name == column).map(|(at, _)| at);
        *place = found.next().ok_or_else(|| anyhow::anyhow!("the header lacks the column {column}; {allowed}"))?;
        if found.next().is_some() {
            anyhow::bail!("the header has the column {column} twice; {allowed}");
        }
    }
    Ok(places)
}

/// The fields of one line.
fn split(line: &str) -> std::result::Result<Vec<String>, String> {
    if line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err("has a quote that is not closed; a field can't hold a line break".to_owned());
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .buffer_capacity(line.len().clamp(1, 4096))
        .from_reader(line.as_bytes());
    match reader.records().next() {
        Some(Ok(record)) => Ok(record.iter().map(str::to_owned).collect()),
        Some(Err(error)) => Err(format!("is not CSV: {error}")),
        None => Ok(Vec::new()),
    }
}

impl<R: BufRead> Csv<R> {
    pub(super) fn new(rows: Rows<R>, create_missing: bool) -> Self {
        Self { rows, create_missing, ahead: None, unreadable: None }
    }

    /// The next payment, with all its rows; or a line that is no row.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        let first = match self.ahead.take() {
            Some(row) => row,
            None => match self.rows.next()? {
                None => return Ok(None),
                Some(Ok(row)) => row,
                Some(Err(bad)) => {
                    let last_line = bad.line;
                    self.unreadable = Some(last_line);
                    return Ok(Some(Item { payment: None, bad: vec![bad], last_line, bytes: self.rows.lines.bytes() }));
                }
            },
        };
        let mut group = Group::new(first, self.unreadable.take(), self.create_missing);
        loop {
            match self.rows.next()? {
                Some(Ok(row)) if row.payment_ref() == group.payment_ref() => group.add(row),
                Some(Ok(row)) => {
                    self.ahead = Some(row);
                    break;
                }
                Some(Err(bad)) => {
                    self.unreadable = Some(bad.line);
                    group.cut_off(bad);
                    break;
                }
                None => break,
            }
        }
        Ok(Some(group.finish(self.rows.lines.bytes())))
    }
}

/// The rows of one payment, so far.
struct Group {
    sourced: Sourced,
    bad: Vec<BadLine>,
    last_line: u64,
    create_missing: bool,
}

impl Group {
    fn new(first: Row, unreadable: Option<u64>, create_missing: bool) -> Self {
        let payment = NewPayment {
            payment_ref: first.payment_ref().to_owned(),
            // 0 is no amount, so that it differs from no good one: the row's own check says what is wrong.
            amount: amount(&first, 1).unwrap_or(0),
            currency: first.fields[2].clone(),
            transfers: Vec::new(),
        };
        let sourced = Sourced { payment, lines: Vec::new(), names: column };
        let mut group = Self { sourced, bad: Vec::new(), last_line: first.line, create_missing };
        if let Some(line) = unreadable {
            group.bad.push(group.left_out(first.line, line));
        }
        group.add(first);
        group
    }

    fn payment_ref(&self) -> &str {
        &self.sourced.payment.payment_ref
    }

    fn add(&mut self, row: Row) {
        self.last_line = row.line;
        if self.sourced.payment.transfers.len() > MAX_TRANSFERS {
            // The ledger will refuse so many; a file of one payment must not fill the memory.
            return;
        }
        match self.transfer(&row) {
            Ok(transfer) => {
                self.sourced.payment.transfers.push(transfer);
                self.sourced.lines.push(row.line);
            }
            Err(bad) => self.bad.push(bad),
        }
    }

    /// The row's transfer, if the row by itself is good and agrees with the payment's first.
    fn transfer(&self, row: &Row) -> std::result::Result<NewTransfer, BadLine> {
        let [_, _, payment_currency, seller_id, stripe_transfer_id, destination, _, currency] = &row.fields;
        let transfer = NewTransfer {
            seller_id: seller_id.clone(),
            stripe_transfer_id: Some(stripe_transfer_id.clone()).filter(|id| !id.is_empty()),
            destination: destination.clone(),
            amount: amount(row, 6)?,
            currency: currency.clone(),
        };
        let alone = NewPayment {
            payment_ref: row.payment_ref().to_owned(),
            amount: amount(row, 1)?,
            currency: payment_currency.clone(),
            transfers: vec![transfer],
        };
        if alone.transfers.iter().any(|transfer| transfer.stripe_transfer_id.is_none()) && !self.create_missing {
            return Err(BadLine::new(row.line, Some(TRANSFER_ID), super::import::WITHOUT_TRANSFER_ID));
        }
        if let Err(LedgerError::Invalid(problems)) = alone.check()
            && let Some(FieldProblem { field, problem }) = problems.into_iter().next()
        {
            return Err(BadLine::new(row.line, Some(column(&field)), problem));
        }
        let payment = &self.sourced.payment;
        let differs = |name: &str, here: String, there: String| {
            let problem = format!("{here:?} is not the same on every row of {}: {there:?}", payment.payment_ref);
            Err(BadLine::new(row.line, Some(name), problem))
        };
        if payment.amount != 0 && alone.amount != payment.amount {
            return differs(COLUMNS[1], alone.amount.to_string(), payment.amount.to_string());
        }
        if !alone.currency.eq_ignore_ascii_case(&payment.currency) {
            return differs(COLUMNS[2], alone.currency, payment.currency.clone());
        }
        alone.transfers.into_iter().next().ok_or_else(|| BadLine::new(row.line, None, "has no transfer"))
    }

    fn cut_off(&mut self, unreadable: BadLine) {
        self.last_line = unreadable.line;
        self.bad.push(self.left_out(self.last_line, unreadable.line));
        self.bad.push(unreadable);
    }

    fn left_out(&self, at: u64, unreadable: u64) -> BadLine {
        let payment_ref = self.payment_ref();
        let problem = format!("{payment_ref} is left out: line {unreadable} can't be read and may belong to it");
        BadLine::new(at, None, problem)
    }

    fn finish(self, bytes: u64) -> Item {
        let Self { sourced, bad, last_line, .. } = self;
        Item { payment: bad.is_empty().then_some(sourced), bad, last_line, bytes }
    }
}

fn amount(row: &Row, index: usize) -> std::result::Result<i64, BadLine> {
    let text = &row.fields[index];
    text.parse().map_err(|_| {
        let problem = format!("{text:?} is not an amount: whole minor units, like 1999 for 19.99 EUR, are allowed");
        BadLine::new(row.line, Some(COLUMNS[index]), problem)
    })
}

/// The column of a payment's field.
fn column(path: &str) -> &str {
    match path {
        "amount" => COLUMNS[1],
        "currency" => COLUMNS[2],
        path => path.rsplit('.').next().unwrap_or(path),
    }
}
