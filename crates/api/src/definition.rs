//! A definition (CRD) as the API server has it, and what its end says of the objects that end with it.
//!
//! Whoever deletes a definition deletes every object of it. Those that a finalizer holds then look like any that somebody wants
//! gone, and nobody can take their deletion back (`docs/decisions/0014`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Seconds by which the clocks of two API servers of one cluster may differ: whose end is that near to its definition's went with it.
const SKEW: i64 = 10;

/// What the API server says of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    /// It is there. Objects older than `created` belonged to another one of that name.
    There {
        /// Its uid: another one after it was deleted and applied again.
        uid: String,
        /// When it was made, seconds since 1970.
        created: i64,
    },
    /// It is being deleted, and its objects with it.
    Going {
        /// Since when, seconds since 1970.
        since: i64,
    },
    /// There is none.
    Gone,
}

impl Definition {
    /// What a look at it found.
    pub fn of(found: Option<ObjectMeta>) -> Self {
        let Some(metadata) = found else { return Self::Gone };
        match metadata.deletion_timestamp {
            Some(since) => Self::Going { since: since.0.as_second() },
            None => Self::There {
                uid: metadata.uid.unwrap_or_default(),
                created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            },
        }
    }

    /// Whether an object that is being deleted goes with it, rather than by anybody's wish: the definition was asked for after the
    /// object was seen to be leaving. A wish that came well before the definition's end counts.
    pub fn takes_along(&self, leaving: &ObjectMeta) -> bool {
        match (self, &leaving.deletion_timestamp) {
            (Self::There { .. }, _) | (_, None) => false,
            (Self::Going { since }, Some(deleted)) => deleted.0.as_second() + SKEW >= *since,
            (Self::Gone, Some(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(fields: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn an_object_goes_with_its_definition_unless_somebody_deleted_it_well_before() {
        let leaving = metadata(json!({"deletionTimestamp": "2026-11-21T00:01:00Z"}));
        let since =
            |time: &str| Definition::of(Some(metadata(json!({"uid": "u", "deletionTimestamp": time}))));
        assert!(since("2026-11-21T00:01:00Z").takes_along(&leaving));
        assert!(since("2026-11-21T00:00:58Z").takes_along(&leaving), "one by one, a moment later");
        assert!(since("2026-11-21T00:01:10Z").takes_along(&leaving), "by a clock that is ahead");
        assert!(!since("2026-11-21T00:01:11Z").takes_along(&leaving), "deleted before");
        assert!(Definition::of(None).takes_along(&leaving));
        let there =
            Definition::of(Some(metadata(json!({"uid": "u", "creationTimestamp": "1970-01-01T00:00:07Z"}))));
        assert_eq!(there, Definition::There { uid: "u".to_owned(), created: 7 });
        assert!(!there.takes_along(&leaving));
        assert!(!Definition::Gone.takes_along(&ObjectMeta::default()), "it stays");
    }
}
