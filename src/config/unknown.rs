//! Environment variables that look like settings of ours and are none.

use std::fmt;

use strsim::damerau_levenshtein;

use super::FILE_VARIABLE;
use super::settings::variables;

/// No other program's variables begin like this.
const PREFIXES: [&str; 5] = ["CLAWBACK_", "REVERSAL_", "TRANSFER_RETRY_", "STRIPE_", "HYPERSWITCH_WEBHOOK_"];
/// Except these, of `docker-compose.yml` and the simulator.
const OTHERS: [&str; 2] = ["CLAWBACK_PORT", "STRIPE_SIM_"];

/// A variable that Clawback ignores, though it looks like a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The setting that may be meant.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a setting and is ignored", self.name)?;
        self.nearest.iter().try_for_each(|nearest| write!(f, "; did you mean {nearest}?"))
    }
}

/// Those among the names of variables.
pub(super) fn find<'a>(names: impl Iterator<Item = &'a str>) -> Vec<UnknownVariable> {
    let mut found: Vec<UnknownVariable> = names.filter_map(unknown).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn unknown(name: &str) -> Option<UnknownVariable> {
    let ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if name == FILE_VARIABLE || variables().any(|known| known == name) {
        return None;
    }
    if OTHERS.iter().any(|other| name.starts_with(other)) {
        return None;
    }
    let nearest = nearest(name);
    (ours || nearest.is_some()).then(|| UnknownVariable { name: name.to_owned(), nearest })
}

/// The setting with nearly this name, if there is one; case does not count.
pub(super) fn nearest(name: &str) -> Option<String> {
    let name = name.to_uppercase();
    // Short names of other programs are near to ours by chance.
    let most = if name.len() > 10 { 2 } else { 1 };
    let distances =
        variables().chain([FILE_VARIABLE.to_owned()]).map(|known| (damerau_levenshtein(&known, &name), known));
    distances.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}
