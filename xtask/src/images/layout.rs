//! An OCI image layout in a tar archive (image-spec 1.1): blobs by digest, manifest, index.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::content::append;

/// What an image says of itself, and its layers.
pub struct Image<'a> {
    /// Full name with tag.
    pub reference: &'a str,
    /// One line for people.
    pub title: &'a str,
    /// Version of the product.
    pub version: &'a str,
    /// Program to run.
    pub entrypoint: &'a str,
    /// `uid:gid`.
    pub user: &'a str,
    /// Uncompressed tar archives, lowest first.
    pub layers: Vec<Vec<u8>>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Image<'_> {
    /// The archive.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut blobs = Blobs::default();
        let config = blobs.add_json(CONFIG, &self.config()?)?;
        let layers: Vec<Value> = self.layers.iter().map(|layer| blobs.add(LAYER, layer.clone())).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": self.labels()});
        let mut descriptor = blobs.add_json(MANIFEST, &manifest)?;
        // containerd takes the name from the first annotation, others the tag from the second.
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.reference.rsplit(':').next(),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });

        let mut builder = tar::Builder::new(Vec::new());
        let mut file =
            |path: &str, bytes: &[u8]| append(&mut builder, path, tar::EntryType::Regular, 0o644, bytes);
        file("oci-layout", &serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?)?;
        file("index.json", &serde_json::to_vec(&index)?)?;
        for (digest, bytes) in &blobs.by_digest {
            file(&format!("blobs/sha256/{digest}"), bytes)?;
        }
        Ok(builder.into_inner()?)
    }

    fn labels(&self) -> Value {
        json!({
            "org.opencontainers.image.title": self.title,
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        })
    }

    // No time of making: it would be the only thing that differs between two builds of the same thing.
    fn config(&self) -> Result<Value> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => anyhow::bail!("no image for {other}: nodes of DigitalOcean Kubernetes are x86-64"),
        };
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
        Ok(json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Entrypoint": [self.entrypoint],
                "Env": ["PATH=/usr/local/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
                "WorkingDir": "/",
                "Labels": self.labels(),
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
    }
}

#[derive(Default)]
struct Blobs {
    by_digest: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor =
            json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        self.by_digest.insert(digest, bytes);
        descriptor
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Result<Value> {
        Ok(self.add(media_type, serde_json::to_vec(value)?))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
