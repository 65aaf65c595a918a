//! Secrets of which each one is valid, so that one can be replaced without a gap.

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use subtle::Choice;

use super::settings::is_secret;

/// At least one secret; `Debug` shows none. Parsed from texts separated by commas.
#[derive(Clone, Debug)]
pub struct SecretList {
    first: SecretString,
    others: Vec<SecretString>,
}

impl SecretList {
    /// The secret to sign with.
    #[must_use]
    pub const fn first(&self) -> &SecretString {
        &self.first
    }

    /// All secrets, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &SecretString> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether `fits` holds for any secret. Asks about every secret, so the time taken does not tell which one fits.
    #[must_use]
    pub fn any(&self, fits: impl Fn(&SecretString) -> Choice) -> bool {
        self.iter().fold(Choice::from(0), |any, secret| any | fits(secret)).into()
    }

    /// Whether the two have a secret in common.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|ours| other.iter().any(|theirs| ours.expose_secret() == theirs.expose_secret()))
    }
}

impl From<SecretString> for SecretList {
    fn from(first: SecretString) -> Self {
        Self { first, others: Vec::new() }
    }
}

/// One secret, whatever its characters.
impl From<&str> for SecretList {
    fn from(secret: &str) -> Self {
        SecretString::from(secret).into()
    }
}

/// A text is no list of secrets. It may hold a secret, so the error does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secrets must be printable ASCII characters without white space, separated by commas")]
pub struct NoSecrets;

impl FromStr for SecretList {
    type Err = NoSecrets;

    fn from_str(text: &str) -> Result<Self, NoSecrets> {
        if !text.split(',').all(is_secret) {
            return Err(NoSecrets);
        }
        let mut secrets = text.split(',').map(SecretString::from);
        let first = secrets.next().ok_or(NoSecrets)?;
        Ok(Self { first, others: secrets.collect() })
    }
}
