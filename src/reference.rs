//! A reference to another of Stripe's objects, in events and in answers: its id, or all of the object where it is expanded.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Another object, by its id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Reference(pub(crate) String);

impl TryFrom<Value> for Reference {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let id = value.as_str().or_else(|| value["id"].as_str());
        id.map(|id| Self(id.to_owned())).ok_or("must be an id, or an object with an id")
    }
}

/// For a field that holds the id alone.
pub(crate) fn id<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Reference::deserialize(value).map(|Reference(id)| id)
}

/// For a field that may be null or left out (with `#[serde(default)]`).
pub(crate) fn optional_id<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Reference>::deserialize(value)?.map(|Reference(id)| id))
}
