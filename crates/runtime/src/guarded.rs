//! An object that may not be what its schema says: older than a rule, or written past it.
//!
//! One such object must not stop the watch of all others, and what is wrong with it must be said with the path of the field.
//! kube's `DeserializeGuard` does the first; its error names no field, and it copies every object once more.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::PartialObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// The object, or what is known of it when it can't be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

/// An object that can't be read.
#[derive(Clone, Debug, PartialEq)]
pub struct InvalidObject {
    /// Path of the field, and what is wrong with it.
    pub error: String,
    /// Its metadata, which can be read.
    pub metadata: Box<ObjectMeta>,
    /// Its status as it is stored; `null` when there is none.
    pub status: serde_json::Value,
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = serde_json::Value::deserialize(deserializer)?;
        match serde_path_to_error::deserialize(&object) {
            Ok(read) => Ok(Self(Ok(read))),
            Err(error) => {
                let partial =
                    PartialObjectMeta::<K>::deserialize(&object).map_err(serde::de::Error::custom)?;
                let metadata = Box::new(partial.metadata);
                let status = object.get("status").cloned().unwrap_or_default();
                Ok(Self(Err(InvalidObject { error: error.to_string(), metadata, status })))
            }
        }
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| invalid.metadata.as_ref(), K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}
