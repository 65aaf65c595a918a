//! Payments from JSON lines: on each line what `POST /v1/payments` takes.

use std::io::{BufRead, Result};

use super::item::{BadLine, Item, Sourced};
use super::lines::{Line, Lines};
use crate::http::json::locate;
use crate::ledger::NewPayment;

/// What the API takes at most.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// Reads payments line by line.
pub(super) struct JsonLines<R> {
    lines: Lines<R>,
    create_missing: bool,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R, create_missing: bool) -> Self {
        Self { lines: Lines::new(input, MAX_LINE_BYTES), create_missing }
    }

    /// The next line's payment.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        let Some((line, text)) = self.lines.next()? else { return Ok(None) };
        let parsed = match text {
            Line::Text(text) => parse(line, text),
            Line::Bad(problem) => Err(BadLine::new(line, None, problem)),
        };
        let (payment, bad) = match parsed.and_then(|payment| self.check(line, payment)) {
            Ok(payment) => (Some(payment), Vec::new()),
            Err(bad) => (None, vec![bad]),
        };
        Ok(Some(Item { payment, bad, last_line: line, bytes: self.lines.bytes() }))
    }

    fn check(&self, line: u64, payment: NewPayment) -> std::result::Result<Sourced, BadLine> {
        let nameless = payment.transfers.iter().position(|transfer| transfer.stripe_transfer_id.is_none());
        match nameless {
            Some(index) if !self.create_missing => {
                let field = format!("transfers[{index}].stripe_transfer_id");
                Err(BadLine::new(line, Some(&field), super::import::WITHOUT_TRANSFER_ID))
            }
            _ => Ok(Sourced { payment, lines: vec![line], names: |path| path }),
        }
    }
}

fn parse(line: u64, text: &str) -> std::result::Result<NewPayment, BadLine> {
    // serde would take an array, too.
    if !text.trim_start().starts_with('{') {
        return Err(BadLine::new(line, None, "is not a JSON object; allowed: what POST /v1/payments takes"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let payment = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (field, problem) = locate(&error, "");
        BadLine::new(line, field.as_deref(), in_the_line(&problem))
    })?;
    deserializer.end().map_err(|error| BadLine::new(line, None, in_the_line(&error.to_string())))?;
    Ok(payment)
}

/// serde counts lines from the text's own first one.
fn in_the_line(problem: &str) -> String {
    problem.replace(" at line 1 column ", " at column ")
}
