//! Kubernetes' API in the memory of a test: as much of it as a controller needs, in virtual time, a thousand lives in the time that a
//! real one needs to start.
//!
//! It has versions and conflicts, generations, finalizers and deletion times, status as a subresource, merge patches, server-side apply
//! with owners of fields, defaults and pruning by the definitions' schemas, lists, watches with bookmarks, and metadata-only answers. It
//! has no admission, no rules in CEL, no garbage collector, no rights, and tells no page from a whole list. That the answers it gives
//! are those of a real API server is shown by one script run against both (`crates/controller/tests/crash/same_answers.rs`).

mod fields;
mod refusal;
mod schema;
mod scope;
mod store;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use fields::Owner;
use refusal::Refusal;
use store::{How, Kind, Place, Store, Write};
use watch::{Selection, Show, Watcher};

pub use watch::{Change, Delivery, Lens};

/// The time of day, as the test has it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The body of an answer.
pub type Reply = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// The API. Clones are the same one.
#[derive(Clone)]
pub struct MemoryApi(Arc<Mutex<Store>>);

/// Without a `timeoutSeconds`, as the API server's shortest.
const WATCH: Duration = Duration::from_secs(1800);

/// Group, version, plural, kind, and whether status is a subresource.
const BUILT_IN: [(&str, &str, &str, &str, bool); 8] = [
    ("", "v1", "nodes", "Node", true),
    ("", "v1", "namespaces", "Namespace", true),
    ("", "v1", "secrets", "Secret", false),
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "configmaps", "ConfigMap", false),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("coordination.k8s.io", "v1", "leases", "Lease", false),
    ("events.k8s.io", "v1", "events", "Event", false),
];

impl MemoryApi {
    /// An empty one with these definitions.
    pub fn new(definitions: Vec<CustomResourceDefinition>, clock: Clock) -> Self {
        let built_in = BUILT_IN.iter().map(|(group, version, plural, kind, has_status)| Kind {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            plural: (*plural).to_owned(),
            kind: (*kind).to_owned(),
            has_status: *has_status,
            schema: None,
        });
        let custom = definitions.into_iter().filter_map(|definition| {
            let spec = definition.spec;
            let version = spec.versions.into_iter().next()?;
            let schema = version.schema.and_then(|schema| schema.open_api_v3_schema);
            Some(Kind {
                group: spec.group,
                version: version.name,
                plural: spec.names.plural,
                kind: spec.names.kind,
                has_status: version.subresources.is_some_and(|subresources| subresources.status.is_some()),
                schema: serde_json::to_value(schema).ok(),
            })
        });
        Self(Arc::new(Mutex::new(Store::new(built_in.chain(custom).collect(), clock))))
    }

    /// The same world by another clock, to be led another way. Nobody watches it.
    pub fn fork(&self, clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(self.store().fork(clock))))
    }

    /// Answers one request. `lens` is how the watch, if it is one, sees the world.
    pub fn answer(&self, request: &Request<Bytes>, lens: &Lens) -> Response<Reply> {
        let answered = self.dispatch(request, lens);
        let (code, body) = match answered {
            Ok(Answer::Value(code, value)) => (code, full(&value)),
            Ok(Answer::Stream(body)) => (200, body),
            Err(refusal) => (refusal.code, full(&refusal.status())),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response
    }

    /// An object as it is now, by plural, namespace and name.
    pub fn object(&self, plural: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        let place =
            Place { plural: plural.into(), namespace: namespace.map(str::to_owned), name: name.into() };
        self.store().get(&place).cloned()
    }

    /// All objects of a kind, by namespace and name.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        self.store().list(plural).cloned().collect()
    }

    /// Everything that has happened, in order.
    pub fn history(&self) -> Vec<Change> {
        self.store().history.clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, request: &Request<Bytes>, lens: &Lens) -> Result<Answer, Refusal> {
        let mut store = self.store();
        let route = Route::of(request, &store.kinds).ok_or_else(Refusal::unknown_path)?;
        let body = || {
            serde_json::from_slice::<Value>(request.body())
                .map_err(|error| Refusal::bad_request(error.to_string()))
        };
        let shown = Shown::of(request, &route.kind);
        match (request.method(), &route.place) {
            (&Method::GET, None) if route.parameter("watch").is_some_and(|watch| watch == "true") => {
                Ok(Answer::Stream(self.watch(&mut store, &route, shown, lens)))
            }
            (&Method::GET, None) => {
                let selection = route.selection();
                let items: Vec<Value> = store
                    .list(&route.kind.plural)
                    .filter(|object| selection.selects(object))
                    .map(|object| shown.show(object))
                    .collect();
                Ok(Answer::Value(200, shown.list(items, store.revision)))
            }
            (&Method::GET, Some(place)) => {
                let object = store.get(place).ok_or_else(|| Refusal::not_found(&route.kind, &place.name))?;
                Ok(Answer::Value(200, shown.show(object)))
            }
            (&Method::POST, None) => {
                let object = body()?;
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let place =
                    Place { plural: route.kind.plural.clone(), namespace: route.namespace.clone(), name };
                let owner = route.owner(false);
                let made = store.create(&route.kind, &place, object, owner)?;
                Ok(Answer::Value(201, shown.show(&made)))
            }
            (&Method::PUT, Some(place)) => {
                let write = Write { owner: route.owner(false), how: How::Replace(body()?) };
                let (object, _) = store.write(&route.kind, place, write)?;
                Ok(Answer::Value(200, shown.show(&object)))
            }
            (&Method::PATCH, Some(place)) => {
                let write = route.patch(request, body()?)?;
                let (object, made) = store.write(&route.kind, place, write)?;
                Ok(Answer::Value(if made { 201 } else { 200 }, shown.show(&object)))
            }
            (&Method::DELETE, Some(place)) => {
                let options = if request.body().is_empty() { Value::Null } else { body()? };
                let left = store.delete(&route.kind, place, &options)?;
                let done =
                    || json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
                Ok(Answer::Value(200, left.map_or_else(done, |object| shown.show(&object))))
            }
            _ => Err(Refusal::unknown_path()),
        }
    }

    fn watch(&self, store: &mut Store, route: &Route, shown: Shown, lens: &Lens) -> Reply {
        let since: u64 =
            route.parameter("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
        let lasts = route
            .parameter("timeoutSeconds")
            .and_then(|seconds| seconds.parse().ok())
            .map_or(WATCH, Duration::from_secs);
        let (sender, changes) = mpsc::unbounded_channel();
        let watcher = Watcher { selection: route.selection(), lens: lens.clone(), sender };
        let now = (store.clock)();
        for change in store.history.iter().filter(|change| change.revision > since) {
            watcher.tell(change, now);
        }
        store.watchers.push(watcher);
        let (api, kind) = (self.clone(), shown.clone());
        let bookmark = move |seen: Option<u64>| {
            let revision = seen.unwrap_or_else(|| api.store().revision).to_string();
            json!({"kind": kind.kind(), "apiVersion": kind.api_version(), "metadata": {"resourceVersion": revision}})
        };
        watch::body(Show {
            changes,
            held: None,
            lasts,
            clock: store.clock.clone(),
            shown: Box::new(move |object: &Value| shown.show(object)),
            bookmark: Box::new(bookmark),
            seen: since,
        })
    }
}

enum Answer {
    Value(u16, Value),
    Stream(Reply),
}

fn full(value: &Value) -> Reply {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

/// What a path and a query mean.
struct Route {
    kind: Kind,
    namespace: Option<String>,
    /// The one object that is meant, if it is one.
    place: Option<Place>,
    subresource: String,
    parameters: Vec<(String, String)>,
}

impl Route {
    fn of(request: &Request<Bytes>, kinds: &[Kind]) -> Option<Self> {
        let mut parts = request.uri().path().trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        let mut namespace = None;
        if rest.len() > 2 && rest[0] == "namespaces" {
            namespace = Some(rest[1].to_owned());
            rest.drain(..2);
        }
        let kind = kinds.iter().find(|kind| {
            kind.group == group && kind.version == version && Some(&kind.plural.as_str()) == rest.first()
        })?;
        let place = rest.get(1).map(|name| Place {
            plural: kind.plural.clone(),
            namespace: namespace.clone(),
            name: (*name).to_owned(),
        });
        let query = request.uri().query().unwrap_or_default();
        let parameters = query
            .split('&')
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.to_owned(), decoded(value)))
            .collect();
        let subresource = rest.get(2).copied().unwrap_or_default().to_owned();
        Some(Self { kind: kind.clone(), namespace, place, subresource, parameters })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn selection(&self) -> Selection {
        let pairs = |name: &str| -> Vec<(String, String)> {
            let text = self.parameter(name).unwrap_or_default();
            text.split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned()))
                .collect()
        };
        let name = pairs("fieldSelector")
            .into_iter()
            .find(|(key, _)| key == "metadata.name")
            .map(|(_, value)| value);
        Selection {
            kind: self.kind.plural.clone(),
            namespace: self.namespace.clone(),
            labels: pairs("labelSelector"),
            name,
        }
    }

    fn owner(&self, applies: bool) -> Owner {
        let name = self.parameter("fieldManager").unwrap_or("unknown").to_owned();
        Owner { name, applies, subresource: self.subresource.clone() }
    }

    fn patch(&self, request: &Request<Bytes>, body: Value) -> Result<Write, Refusal> {
        let kind = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        match kind {
            "application/apply-patch+yaml" => {
                let force = self.parameter("force") == Some("true");
                Ok(Write { owner: self.owner(true), how: How::Apply(body, force) })
            }
            "application/merge-patch+json" => Ok(Write { owner: self.owner(false), how: How::Merge(body) }),
            other => Err(Refusal::bad_request(format!("no patch of type {other}"))),
        }
    }
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| value.to_owned())
}

/// How objects are shown: whole, or their metadata.
#[derive(Clone)]
struct Shown {
    kind: Kind,
    metadata_only: bool,
}

impl Shown {
    fn of(request: &Request<Bytes>, kind: &Kind) -> Self {
        let accept = request
            .headers()
            .get(http::header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        Self { kind: kind.clone(), metadata_only: accept.contains("as=PartialObjectMetadata") }
    }

    fn kind(&self) -> &str {
        if self.metadata_only { "PartialObjectMetadata" } else { &self.kind.kind }
    }

    fn api_version(&self) -> String {
        if self.metadata_only { "meta.k8s.io/v1".to_owned() } else { self.kind.api_version() }
    }

    fn show(&self, object: &Value) -> Value {
        if !self.metadata_only {
            return object.clone();
        }
        json!({"kind": self.kind(), "apiVersion": self.api_version(), "metadata": object["metadata"]})
    }

    fn list(&self, items: Vec<Value>, revision: u64) -> Value {
        json!({"kind": format!("{}List", self.kind()), "apiVersion": self.api_version(),
               "metadata": {"resourceVersion": revision.to_string()}, "items": items})
    }
}
