//! Stripe's limits for metadata, in its own words where those are known.

use std::collections::BTreeMap;

use crate::shapes::ApiError;

const KEYS_MAX: usize = 50;
const KEY_MAX_CHARS: usize = 40;
const VALUE_MAX_CHARS: usize = 500;

/// Checks what a request gives, values that unset a key included.
pub(crate) fn check(given: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::invalid(message).param("metadata"));
    for (key, value) in given {
        let (key_length, length) = (key.chars().count(), value.chars().count());
        if key.is_empty() {
            return refuse("Metadata keys can't be empty.".to_owned());
        }
        if key.contains(['[', ']']) {
            return refuse(format!("Metadata keys can't contain square brackets. Invalid key: {key}"));
        }
        if key_length > KEY_MAX_CHARS {
            return refuse(format!(
                "Metadata keys can have up to {KEY_MAX_CHARS} characters, but you passed in a key that is {key_length} \
                 characters. Invalid key: {key}"
            ));
        }
        if length > VALUE_MAX_CHARS {
            return refuse(format!(
                "Metadata values can have up to {VALUE_MAX_CHARS} characters, but you passed in a value that is \
                 {length} characters. Invalid value: {value}"
            ));
        }
    }
    if given.len() > KEYS_MAX {
        let count = given.len();
        return refuse(format!("Metadata can have up to {KEYS_MAX} keys, but you've set {count}."));
    }
    Ok(())
}
