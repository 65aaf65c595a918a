//! Form parameters, read one by one; what is left over is an unknown parameter, as it is for Stripe.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use url::form_urlencoded;

use super::expand::{self, Path};
use super::metadata;
use crate::shapes::ApiError;

#[derive(Debug, Clone)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// From a body or a query string.
    pub(crate) fn parse(form: &[u8]) -> Params {
        Params(form_urlencoded::parse(form).into_owned().collect())
    }

    /// The value of a name, which stays.
    pub(crate) fn peek(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A fingerprint that does not depend on the order of the parameters.
    pub(crate) fn fingerprint(&self, method: &str, path: &str) -> u64 {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (method, path, pairs).hash(&mut hasher);
        hasher.finish()
    }

    /// Takes the value of a name, whatever it is.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(at).1)
    }

    /// Takes the value of a name that can't be unset, so that it must not be empty.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            Some(value) if value.is_empty() => Err(ApiError::invalid(format!(
                "You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; \
                 however '{name}' cannot be unset. You should remove '{name}' from your request or supply a non-empty \
                 value."
            ))
            .code("parameter_invalid_empty")
            .param(name)),
            value => Ok(value),
        }
    }

    /// Takes the value of a name that an empty value unsets.
    pub(crate) fn unsettable(&mut self, name: &str) -> Option<String> {
        self.take(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// Takes an integer.
    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let value = text.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        value.map(Some).ok_or_else(|| invalid_integer(name, format!("Invalid integer: {text}")))
    }

    /// Takes an integer of at least 1.
    pub(crate) fn positive(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.integer(name)? {
            Some(value) if value < 1 => {
                Err(invalid_integer(name, "This value must be greater than or equal to 1.".to_owned()))
            }
            value => Ok(value),
        }
    }

    pub(crate) fn required_positive(&mut self, name: &str) -> Result<i64, ApiError> {
        self.positive(name)?.ok_or_else(|| missing(name))
    }

    /// Takes `true` or `false`, which is the default.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::invalid(format!("Invalid boolean: {other}")).param(name)),
        }
    }

    /// Takes `metadata[key]=value`; an empty value unsets, so it is left out.
    pub(crate) fn metadata(&mut self) -> Result<BTreeMap<String, String>, ApiError> {
        let mut given = BTreeMap::new();
        self.0.retain_mut(|(name, value)| {
            let Some(key) = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) else {
                return true;
            };
            given.insert(key.to_owned(), std::mem::take(value));
            false
        });
        if self.unsettable("metadata").is_some() {
            return Err(ApiError::invalid("Invalid object").param("metadata"));
        }
        metadata::check(&given)?;
        given.retain(|_, value| !value.is_empty());
        Ok(given)
    }

    /// Takes `expand[]=…` and `expand[0]=…`, each of which must be one that an object of this type has.
    pub(crate) fn expand(&mut self, object: &'static str) -> Result<Vec<Path>, ApiError> {
        let mut paths = Vec::new();
        self.0.retain_mut(|(name, value)| {
            let is_expand = name.starts_with("expand[");
            if is_expand {
                paths.push(std::mem::take(value));
            }
            !is_expand
        });
        paths.into_iter().map(|path| expand::check(object, path)).collect()
    }

    /// Refuses what nobody has taken.
    pub(crate) fn nothing_else(self) -> Result<(), ApiError> {
        let Some((first, _)) = self.0.first() else { return Ok(()) };
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        let plural = if names.len() > 1 { "s" } else { "" };
        Err(ApiError::invalid(format!("Received unknown parameter{plural}: {}", names.join(", ")))
            .code("parameter_unknown")
            .param(first.as_str()))
    }
}

fn invalid_integer(name: &str, message: String) -> ApiError {
    ApiError::invalid(message).code("parameter_invalid_integer").param(name)
}

fn missing(name: &str) -> ApiError {
    ApiError::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(name)
}
