//! Decoders that forgive what the API is known to get wrong: what cannot be read counts as absent.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `None` when the field is null or of another shape.
pub fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// The elements that can be read; empty when the field is no array (`networks: {}` of a new Droplet, null tags).
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    match Value::deserialize(deserializer)? {
        Value::Array(items) => {
            Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// A list whose description allows null for an empty one; `None` when it is of another shape.
pub fn nullable_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(Some(Vec::new())),
        other => Ok(serde_json::from_value(other).ok()),
    }
}

/// The `slug` of an object (region, size) or a plain string.
pub fn slug<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = match Value::deserialize(deserializer)? {
        Value::Object(mut object) => object.remove("slug").unwrap_or(Value::Null),
        other => other,
    };
    Ok(serde_json::from_value(value).ok())
}
