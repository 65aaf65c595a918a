//! What the readers of both formats hand to the import: payments, and lines that are none.

use serde::Serialize;

use crate::ledger::NewPayment;

/// The longest that a problem is told, in characters: a bad value may be as long as its line.
const MAX_PROBLEM_CHARS: usize = 300;

/// A part of the file, in its order.
#[derive(Debug)]
pub(super) struct Item {
    /// The payment, if every line of it is good.
    pub(super) payment: Option<Sourced>,
    /// What is wrong with its lines.
    pub(super) bad: Vec<BadLine>,
    /// The last line that belongs to it.
    pub(super) last_line: u64,
    /// How much of the file has been read with it.
    pub(super) bytes: u64,
}

/// A payment, and where it stands.
#[derive(Debug)]
pub(super) struct Sourced {
    pub(super) payment: NewPayment,
    /// The line of each transfer, or one for all of them.
    pub(super) lines: Vec<u64>,
    /// Its names for the fields of a payment and of its transfers.
    pub(super) names: fn(&str) -> &str,
}

/// A line that can't be registered. Names are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct BadLine {
    /// From 1.
    pub(super) line: u64,
    /// The column, or the path in the JSON; none for the line as a whole.
    pub(super) field: Option<String>,
    /// What is wrong, with the value and what is allowed.
    pub(super) problem: String,
}

impl BadLine {
    pub(super) fn new(line: u64, field: Option<&str>, problem: impl Into<String>) -> Self {
        let mut problem = problem.into();
        if let Some((at, _)) = problem.char_indices().nth(MAX_PROBLEM_CHARS) {
            problem.truncate(at);
            problem.push('…');
        }
        Self { line, field: field.map(str::to_owned), problem }
    }
}

impl Sourced {
    /// The bad line for a problem that the ledger has with a field of this payment (`transfers[1].amount`).
    pub(super) fn invalid(&self, path: &str, problem: &str) -> BadLine {
        let inside = path.strip_prefix("transfers[").and_then(|rest| rest.split_once("]."));
        let index = inside.and_then(|(index, _)| index.parse::<usize>().ok());
        let line = index.and_then(|index| self.lines.get(index)).or(self.lines.first());
        BadLine::new(line.copied().unwrap_or_default(), Some((self.names)(path)), problem)
    }

    /// The bad line for a problem with the payment as a whole.
    pub(super) fn refused(&self, problem: impl Into<String>) -> BadLine {
        BadLine::new(self.lines.first().copied().unwrap_or_default(), None, problem)
    }
}
