//! The custom resources of networking.digitalocean.com: types, schema, conditions; no I/O.
