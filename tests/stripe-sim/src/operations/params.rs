//! Form parameters, read one by one; what is left over is an unknown parameter, as it is for Stripe.

use std::collections::BTreeMap;

use url::form_urlencoded;

use crate::shapes::ApiError;

pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// From a body or a query string.
    pub(crate) fn parse(form: &str) -> Params {
        Params(form_urlencoded::parse(form.as_bytes()).into_owned().collect())
    }

    /// The pairs in an order that does not depend on how they were sent.
    pub(crate) fn sorted(mut self) -> Vec<(String, String)> {
        self.0.sort();
        self.0
    }

    /// Takes the value of a name; an empty one counts as absent.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(at).1).filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name).ok_or_else(|| missing(name))
    }

    /// Takes an integer of at least 1.
    pub(crate) fn positive(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let invalid = |message: String| ApiError::invalid(message).code("parameter_invalid_integer").param(name);
        let value: i64 = text.parse().map_err(|_| invalid(format!("Invalid integer: {text}")))?;
        if value < 1 {
            return Err(invalid("This value must be greater than or equal to 1.".to_owned()));
        }
        Ok(Some(value))
    }

    pub(crate) fn required_positive(&mut self, name: &str) -> Result<i64, ApiError> {
        self.positive(name)?.ok_or_else(|| missing(name))
    }

    /// Takes `metadata[key]=value`; an empty value unsets, so it is left out.
    pub(crate) fn metadata(&mut self) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::new();
        self.0.retain(|(name, value)| {
            let Some(key) = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) else {
                return true;
            };
            if !value.is_empty() {
                metadata.insert(key.to_owned(), value.clone());
            }
            false
        });
        metadata
    }

    /// Takes `expand[]=…` and `expand[0]=…`, and tells whether each of them is one that can be expanded here.
    pub(crate) fn expand(&mut self, allowed: &[&str]) -> Result<Vec<String>, ApiError> {
        let mut names = Vec::new();
        self.0.retain(|(name, value)| {
            let is_expand = name.starts_with("expand[");
            if is_expand {
                names.push(value.clone());
            }
            !is_expand
        });
        match names.iter().find(|name| !allowed.contains(&name.as_str())) {
            Some(name) => {
                Err(ApiError::invalid(format!("This property cannot be expanded ({name}).")).param("expand[]"))
            }
            None => Ok(names),
        }
    }

    /// Refuses what nobody has taken.
    pub(crate) fn nothing_else(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(ApiError::invalid(format!("Received unknown parameter: {name}"))
                .code("parameter_unknown")
                .param(name)),
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(name)
}
