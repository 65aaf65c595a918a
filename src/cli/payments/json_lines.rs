//! Payments from JSON lines: each line is a body of `POST /v1/payments`.

use std::io::{BufRead, Result};

use super::import::{Accept, WITHOUT_TRANSFER_ID};
use super::item::{BadLine, Item};
use super::lines::Lines;
use crate::http::json::locate;
use crate::ledger::NewPayment;

/// The API's own limit for a body.
const MAX_LINE_BYTES: usize = 1024 * 1024;

pub(super) struct JsonLines<R> {
    lines: Lines<R>,
    accept: Accept,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R, accept: Accept) -> Self {
        Self { lines: Lines::new(input, MAX_LINE_BYTES), accept }
    }

    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        let Some((line, text)) = self.lines.next()? else { return Ok(None) };
        let parsed = text.map_err(|problem| BadLine::new(line, None, problem)).and_then(|text| parse(line, text));
        let checked = parsed.and_then(|payment| check(line, payment, self.accept));
        let item = Item { first_line: line, last_line: line, bytes: self.lines.bytes, ..Item::default() };
        Ok(Some(match checked {
            Ok(payment) => Item { payment: Some(payment), ..item },
            Err(bad) => Item { bad: vec![bad], ..item },
        }))
    }
}

fn parse(line: u64, text: &str) -> std::result::Result<NewPayment, BadLine> {
    // serde would accept an array, too.
    if !text.trim_start().starts_with('{') {
        return Err(BadLine::new(line, None, "must be a JSON object, the body of POST /v1/payments"));
    }
    // serde counts lines from the start of the text.
    let here = |problem: &str| problem.replace(" at line 1 column ", " at column ");
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let payment = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (field, problem) = locate(&error, "");
        let syntax = if error.inner().is_data() { "" } else { "is not valid JSON: " };
        BadLine::new(line, field.as_deref(), format!("{syntax}{}", here(&problem)))
    })?;
    let rest = deserializer.end();
    rest.map_err(|error| BadLine::new(line, None, format!("is not valid JSON: {}", here(&error.to_string()))))?;
    Ok(payment)
}

fn check(line: u64, mut payment: NewPayment, accept: Accept) -> std::result::Result<NewPayment, BadLine> {
    let nameless = payment.transfers.iter().position(|transfer| transfer.stripe_transfer_id.is_none());
    if let Some(index) = nameless.filter(|_| !accept.missing) {
        let field = format!("transfers[{index}].stripe_transfer_id");
        return Err(BadLine::new(line, Some(&field), WITHOUT_TRANSFER_ID));
    }
    payment.transfers.iter_mut().for_each(|transfer| transfer.create |= transfer.stripe_transfer_id.is_none());
    payment.allow_excess |= accept.excess;
    payment.check().map_err(|error| BadLine::refused(line, error, |path| path))?;
    Ok(payment)
}
