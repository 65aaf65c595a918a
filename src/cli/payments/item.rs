//! What both readers hand to the import: a payment, or what is wrong with its lines.

use std::fmt;

use serde::Serialize;

use crate::ledger::{FieldProblem, LedgerError, NewPayment};

/// Characters. A bad value may be as long as its line.
const MAX_PROBLEM: usize = 300;

/// One payment of the file, or a line that belongs to none.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// None exactly when `bad` has entries.
    pub(super) payment: Option<NewPayment>,
    pub(super) bad: Vec<BadLine>,
    /// Where it starts, from 1.
    pub(super) first_line: u64,
    pub(super) last_line: u64,
    /// How much of the file is read with it.
    pub(super) bytes: u64,
}

/// A line that can't be registered. Names are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct BadLine {
    pub(super) line: u64,
    /// The column, or the path in the JSON; none for the line as a whole.
    field: Option<String>,
    /// With the value, and what is allowed.
    problem: String,
}

impl BadLine {
    pub(super) fn new(line: u64, field: Option<&str>, problem: impl Into<String>) -> Self {
        let mut problem = problem.into();
        if let Some((at, _)) = problem.char_indices().nth(MAX_PROBLEM) {
            problem.truncate(at);
            problem.push('…');
        }
        Self { line, field: field.map(str::to_owned), problem }
    }

    /// `named` turns a path in a payment into the file's own name for it.
    pub(super) fn refused(line: u64, error: LedgerError, named: fn(&str) -> &str) -> Self {
        match &error {
            LedgerError::Invalid(problems) if !problems.is_empty() => {
                let FieldProblem { field, problem } = &problems[0];
                Self::new(line, Some(named(field)), problem)
            }
            error => Self::new(line, None, error.to_string()),
        }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, field, problem } = self;
        match field {
            Some(field) => write!(f, "line {line}: {field} {problem}"),
            None => write!(f, "line {line}: {problem}"),
        }
    }
}
