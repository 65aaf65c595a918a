//! Why a configuration can't be used: every problem, with what to do about it.

use std::fmt;

use super::UnknownVariable;

/// Everything that is wrong with the configuration. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) problems: Vec<Problem>,
    pub(super) unknown_variables: Vec<UnknownVariable>,
}

/// One setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The environment variable, or the key if it was given in the file.
    pub setting: String,
    /// What it must be, and what it is unless that is secret.
    pub problem: String,
}

impl ConfigError {
    /// All problems, at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Variables that may be misspelt settings.
    #[must_use]
    pub fn unknown_variables(&self) -> &[UnknownVariable] {
        &self.unknown_variables
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration can't be used:")?;
        self.problems.iter().try_for_each(|Problem { setting, problem }| write!(f, "\n  {setting} {problem}"))?;
        self.unknown_variables.iter().try_for_each(|unknown| write!(f, "\n  warning: {unknown}"))
    }
}

impl std::error::Error for ConfigError {}
