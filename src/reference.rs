//! A reference to another of Stripe's objects, in events and in answers: its id, or all of the object where it is expanded.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Another object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Reference {
    /// Stripe's id of it.
    pub(crate) id: String,
    /// The id alone, or the object.
    pub(crate) value: Value,
}

impl TryFrom<Value> for Reference {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let id = id_of(&value).ok_or("must be an id, or an object with an id")?.to_owned();
        Ok(Self { id, value })
    }
}

/// The id in a reference.
pub(crate) fn id_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["id"].as_str())
}

/// For a field that holds the id alone.
pub(crate) fn id<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Reference::deserialize(value).map(|reference| reference.id)
}

/// For a field that may be null or left out (with `#[serde(default)]`).
pub(crate) fn optional_id<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Reference>::deserialize(value)?.map(|reference| reference.id))
}
