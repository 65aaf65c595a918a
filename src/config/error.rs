//! Why a configuration cannot be used: every problem, with what to do about it.

use std::fmt;

/// Everything that is wrong with the configuration. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The environment variable, or the key if it was given in the file.
    pub setting: String,
    /// What is wrong, with the value unless that is secret, and what is allowed.
    pub problem: String,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// All of them, at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        for Problem { setting, problem } in &self.problems {
            write!(f, "\n  {setting} {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
