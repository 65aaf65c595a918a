//! Payments from CSV, one transfer a row. Each line is split on its own, so an unclosed quote spoils no other.

use std::io::{BufRead, Result};

use csv::{ReaderBuilder, StringRecord, Trim};
use serde::Deserialize;

use super::import::{Accept, WITHOUT_TRANSFER_ID};
use super::item::{BadLine, Item};
use super::lines::Lines;
use crate::ledger::{LedgerError, MAX_TRANSFERS, NewPayment, NewTransfer};

/// Many times the longest valid row.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// The fields of [`Row`] that every file must have, in any order.
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
/// Those that it may have.
const OPTIONAL: [&str; 2] = ["amount_reversed", "refund_application_fee"];

#[derive(Deserialize)]
struct Row {
    payment_ref: String,
    payment_amount: i64,
    payment_currency: String,
    seller_id: String,
    stripe_transfer_id: Option<String>,
    destination: String,
    amount: i64,
    currency: String,
    amount_reversed: Option<i64>,
    refund_application_fee: Option<bool>,
}

/// The rows of a file.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    header: StringRecord,
    payment_ref: usize,
}

pub(super) struct Record {
    pub(super) line: u64,
    pub(super) payment_ref: String,
    fields: StringRecord,
}

impl<R: BufRead> Rows<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is wrong with it, or the input's error.
    pub(super) fn new(input: R) -> anyhow::Result<Self> {
        let mut lines = Lines::new(input, MAX_LINE_BYTES);
        let allowed = format!(
            "the header must have these columns, in any order: {}; and it may have: {}",
            COLUMNS.join(","),
            OPTIONAL.join(",")
        );
        let Some((line, text)) = lines.next()? else { anyhow::bail!("the file is empty; {allowed}") };
        let header = text.and_then(split).map_err(|problem| anyhow::anyhow!("line {line} {problem}"))?;
        if let Some(unknown) = header.iter().find(|name| !COLUMNS.contains(name) && !OPTIONAL.contains(name)) {
            anyhow::bail!("the header has the unknown column {unknown:?}; {allowed}, separated by commas");
        }
        for column in COLUMNS.iter().chain(&OPTIONAL) {
            match header.iter().filter(|name| name == column).count() {
                0 if OPTIONAL.contains(column) => {}
                0 => anyhow::bail!("the header lacks the column {column}; {allowed}"),
                1 => {}
                _ => anyhow::bail!("the header has the column {column} twice; {allowed}"),
            }
        }
        let payment_ref = header.iter().position(|name| name == COLUMNS[0]).unwrap_or_default();
        Ok(Self { lines, header, payment_ref })
    }

    pub(super) fn next(&mut self) -> Result<Option<std::result::Result<Record, BadLine>>> {
        let Some((line, text)) = self.lines.next()? else { return Ok(None) };
        let fields = text.and_then(split).and_then(|fields| match fields.len() {
            found if found == self.header.len() => Ok(fields),
            found => Err(format!("must have {} fields, as the header has (got {found})", self.header.len())),
        });
        let record = fields.map(|fields| {
            let payment_ref = fields.get(self.payment_ref).unwrap_or_default().to_owned();
            Record { line, payment_ref, fields }
        });
        Ok(Some(record.map_err(|problem| BadLine::new(line, None, problem))))
    }
}

fn split(line: &str) -> std::result::Result<StringRecord, String> {
    if line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err("has an unclosed quote; a field can't contain a line break".to_owned());
    }
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).trim(Trim::All).buffer_capacity(line.len().clamp(1, 4096));
    let mut record = StringRecord::new();
    match builder.from_reader(line.as_bytes()).read_record(&mut record) {
        Ok(_) => Ok(record),
        Err(error) => Err(format!("is not CSV: {error}")),
    }
}

/// Reads payments, each from its rows.
pub(super) struct Csv<R> {
    rows: Rows<R>,
    accept: Accept,
    /// The row that ended the payment before it.
    ahead: Option<Record>,
    /// The line before, if it was unreadable: it may belong to the payment on either side, so neither is registered.
    unreadable: Option<u64>,
}

impl<R: BufRead> Csv<R> {
    pub(super) fn new(rows: Rows<R>, accept: Accept) -> Self {
        Self { rows, accept, ahead: None, unreadable: None }
    }

    fn take(&mut self) -> Result<Option<std::result::Result<Record, BadLine>>> {
        self.ahead.take().map_or_else(|| self.rows.next(), |record| Ok(Some(Ok(record))))
    }

    /// The next payment with all its rows, or an unreadable line.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        let first = match self.take()? {
            None => return Ok(None),
            Some(Ok(first)) => first,
            Some(Err(bad)) => {
                let (line, bytes) = (bad.line, self.rows.lines.bytes);
                self.unreadable = Some(line);
                return Ok(Some(Item { payment: None, bad: vec![bad], first_line: line, last_line: line, bytes }));
            }
        };
        let payment_ref = first.payment_ref.clone();
        let skipped = |at: u64, unreadable: u64| {
            let problem = format!("{payment_ref} is skipped: line {unreadable} is unreadable and may belong to it");
            BadLine::new(at, None, problem)
        };
        let mut item = Item { first_line: first.line, ..Item::default() };
        item.bad.extend(self.unreadable.take().map(|line| skipped(first.line, line)));
        let (mut lines, mut next) = (Vec::new(), Some(first));
        while let Some(record) = next.take() {
            item.last_line = record.line;
            // The ledger refuses more; a file of one payment must not fill the memory.
            if lines.len() <= MAX_TRANSFERS {
                match (self.check(&record, item.payment.as_ref()), &mut item.payment) {
                    (Err(bad), _) => item.bad.push(bad),
                    (Ok(row), payment) => {
                        lines.push(record.line);
                        match payment {
                            Some(payment) => payment.transfers.extend(row.transfers),
                            None => *payment = Some(row),
                        }
                    }
                }
            }
            match self.rows.next()? {
                None => {}
                Some(Ok(record)) if record.payment_ref == payment_ref => next = Some(record),
                Some(Ok(record)) => self.ahead = Some(record),
                Some(Err(bad)) => {
                    item.last_line = bad.line;
                    self.unreadable = Some(bad.line);
                    item.bad.extend([skipped(bad.line, bad.line), bad]);
                }
            }
        }
        if let Some(Err(error)) = item.payment.as_ref().filter(|_| item.bad.is_empty()).map(NewPayment::check) {
            let line = lines.get(index(&error)).copied().unwrap_or_default();
            item.bad.push(BadLine::refused(line, error, column));
        }
        item.payment = item.payment.filter(|_| item.bad.is_empty());
        item.bytes = self.rows.lines.bytes;
        Ok(Some(item))
    }

    /// The payment with this row's transfer alone, if the row is valid and agrees with the rows before it.
    fn check(&self, record: &Record, first: Option<&NewPayment>) -> std::result::Result<NewPayment, BadLine> {
        let row = record.parse(&self.rows.header)?;
        let bad = |field: &str, problem: String| Err(BadLine::new(record.line, Some(field), problem));
        if row.stripe_transfer_id.is_none() && !self.accept.missing {
            return bad("stripe_transfer_id", WITHOUT_TRANSFER_ID.to_owned());
        }
        let row = row.payment(self.accept);
        row.check().map_err(|error| BadLine::refused(record.line, error, column))?;
        let Some(first) = first else { return Ok(row) };
        let differs = |there: &str, here: &str| {
            format!("must be the same on every row of {}: {there} (got {here})", first.payment_ref)
        };
        if row.amount != first.amount {
            return bad("payment_amount", differs(&first.amount.to_string(), &row.amount.to_string()));
        }
        if !row.currency.eq_ignore_ascii_case(&first.currency) {
            return bad("payment_currency", differs(&first.currency, &row.currency));
        }
        Ok(row)
    }
}

impl Record {
    fn parse(&self, header: &StringRecord) -> std::result::Result<Row, BadLine> {
        self.fields.deserialize(Some(header)).map_err(|error| {
            let field = match error.kind() {
                csv::ErrorKind::Deserialize { err, .. } => err.field().and_then(|field| usize::try_from(field).ok()),
                _ => None,
            };
            let (column, value) = field.map_or((None, None), |at| (header.get(at), self.fields.get(at)));
            let value = value.unwrap_or_default();
            let must = match column {
                Some("refund_application_fee") => "true or false",
                _ => "a whole number of minor units, like 1999 for 19.99 EUR",
            };
            let problem = format!("must be {must} (got {value:?})");
            BadLine::new(self.line, column, problem)
        })
    }
}

impl Row {
    fn payment(self, accept: Accept) -> NewPayment {
        let transfer = NewTransfer {
            seller_id: self.seller_id,
            create: self.stripe_transfer_id.is_none(),
            stripe_transfer_id: self.stripe_transfer_id,
            destination: self.destination,
            amount: self.amount,
            currency: self.currency,
            amount_reversed: self.amount_reversed.unwrap_or_default(),
            refund_application_fee: self.refund_application_fee.unwrap_or_default(),
            made_by_clawback: false,
        };
        NewPayment {
            payment_ref: self.payment_ref,
            amount: self.payment_amount,
            currency: self.payment_currency,
            transfers: vec![transfer],
            allow_excess: accept.excess,
        }
    }
}

/// The index of the transfer that the ledger refuses (`transfers[1].amount`), or 0.
fn index(error: &LedgerError) -> usize {
    let LedgerError::Invalid(problems) = error else { return 0 };
    let field = problems.first().map_or("", |problem| problem.field.as_str());
    field.split(['[', ']']).nth(1).and_then(|index| index.parse().ok()).unwrap_or(0)
}

/// The column of a payment's field.
fn column(path: &str) -> &str {
    match path {
        "amount" => "payment_amount",
        "currency" => "payment_currency",
        path => path.rsplit('.').next().unwrap_or(path),
    }
}
