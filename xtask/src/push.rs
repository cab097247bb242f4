//! Pushes the image archives to a registry and renders the install file, and values for the chart, with the digests the registry gave
//! them.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::images::{PRODUCTS, archive, target};
use crate::{manifests, tree};

/// Arguments of `cargo xtask push`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Registry and path, such as `registry.digitalocean.com/<your registry>`. Log in first: `doctl registry login`, or
    /// `skopeo login`.
    #[arg(long)]
    registry: String,
    /// Name of the Secret that nodes pull with. On DigitalOcean's registry `registry-<name>`, which is what `doctl registry
    /// kubernetes-manifest` calls it; elsewhere none.
    #[arg(long)]
    pull_secret: Option<String>,
}

/// Pushes; writes target/deploy/crds.yaml, target/deploy/install.yaml and target/deploy/values.yaml.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let registry = checked(&arguments.registry)?;
    let mut pinned = Vec::new();
    for product in PRODUCTS {
        let source = archive(root, product.name);
        if !source.is_file() {
            bail!("target/images/{}.tar is not there; `make images` builds it", product.name);
        }
        let name = format!("{registry}/{}", product.name);
        let digest = copy(&source, &name)?;
        println!("pushed {name}:{} as {digest}", env!("CARGO_PKG_VERSION"));
        pinned.push((product.name, name, digest));
    }
    let pull_secret = arguments.pull_secret.clone().or_else(|| digitalocean_secret(registry));
    render(root, &kustomization(&pinned, pull_secret.as_deref())?, &pinned)?;
    let values = values(&pinned, pull_secret.as_deref())?;
    std::fs::write(target(root).join("deploy/values.yaml"), values)?;
    println!("or, with Helm, which has the CRDs in its chart:");
    println!(
        "  helm install egress-gateway deploy/chart -n egress-gateway --create-namespace -f target/deploy/values.yaml"
    );
    Ok(())
}

// Kubernetes ignores a pull secret that is not there: a public registry needs none.
fn digitalocean_secret(registry: &str) -> Option<String> {
    let name = registry.strip_prefix("registry.digitalocean.com/")?;
    name.split('/').next().map(|name| format!("registry-{name}"))
}

// A scheme or tag would end up in the middle of an image's name.
fn checked(registry: &str) -> Result<&str> {
    let registry = registry.trim_end_matches('/');
    let last = registry.rsplit('/').next().unwrap_or_default();
    let tagged = registry.contains('/') && last.contains(':');
    if registry.is_empty() || registry.contains("://") || registry.contains(char::is_whitespace) || tagged {
        bail!("REGISTRY is a registry and a path, like registry.digitalocean.com/acme, not {registry:?}");
    }
    Ok(registry)
}

fn copy(source: &Path, name: &str) -> Result<String> {
    let digest_file = source.with_extension("digest");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--retry-times=3", "--digestfile"]).arg(&digest_file);
    skopeo.arg(format!("oci-archive:{}", source.display()));
    skopeo.arg(format!("docker://{name}:{}", env!("CARGO_PKG_VERSION")));
    tree::run(&mut skopeo)?;
    let digest = std::fs::read_to_string(&digest_file).context("skopeo wrote no digest")?;
    let digest = digest.trim().to_owned();
    if !digest.starts_with("sha256:") {
        bail!("skopeo gave {digest:?} as a digest");
    }
    Ok(digest)
}

fn render(root: &Path, kustomization: &str, pinned: &[(&str, String, String)]) -> Result<()> {
    let folder = target(root).join("deploy");
    // kustomize wants paths relative to the file: a copy of deploy/ beside it works wherever the target folder is.
    let overlay = folder.join("pinned");
    copy_folder(&root.join("deploy"), &folder.join("source/deploy"))?;
    copy_folder(&root.join("crds"), &folder.join("source/crds"))?;
    std::fs::create_dir_all(&overlay)?;
    std::fs::write(overlay.join("kustomization.yaml"), kustomization)?;

    let (_, install) = manifests::render_folder(root, &overlay)?;
    for (name, _, digest) in pinned {
        if !install.contains(digest.as_str()) {
            bail!("the rendered manifests do not use {name} by its digest");
        }
    }
    std::fs::write(folder.join("install.yaml"), install)?;
    let (_, crds) = manifests::render_folder(root, &folder.join("source/deploy/crds"))?;
    std::fs::write(folder.join("crds.yaml"), crds)?;
    println!("rendered target/deploy/crds.yaml and target/deploy/install.yaml; apply them in this order:");
    println!("  kubectl apply --server-side -f target/deploy/crds.yaml");
    println!("  kubectl apply -f target/deploy/install.yaml");
    Ok(())
}

fn kustomization(pinned: &[(&str, String, String)], pull_secret: Option<&str>) -> Result<String> {
    let mut text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
        resources:\n  - ../source/deploy/overlays/doks\nimages:\n"
        .to_owned();
    for (name, real, digest) in pinned {
        writeln!(text, "  - name: {name}\n    newName: {real}\n    digest: {digest}")?;
    }
    if let Some(secret) = pull_secret {
        write!(
            text,
            "patches:\n  - target: {{kind: ServiceAccount}}\n    patch: |\n      \
             - {{op: add, path: /imagePullSecrets, value: [{{name: {secret}}}]}}\n"
        )?;
    }
    Ok(text)
}

// What the chart is to be told.
fn values(pinned: &[(&str, String, String)], pull_secret: Option<&str>) -> Result<String> {
    let mut text = "images:\n".to_owned();
    for (name, real, digest) in pinned {
        let key = name.strip_prefix("egress-").unwrap_or(name);
        writeln!(text, "  {key}: {real}@{digest}")?;
    }
    if let Some(secret) = pull_secret {
        writeln!(text, "  pullSecrets: [{secret}]")?;
    }
    Ok(text)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    for file in tree::files(from, ".yaml")? {
        let copy = to.join(file.strip_prefix(from)?);
        if let Some(folder) = copy.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::copy(&file, copy)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_names_images_by_digest_and_the_pull_secret_of_the_registry() {
        let root = tree::root().unwrap();
        let pinned = PRODUCTS.map(|product| {
            let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
            (product.name, format!("registry.digitalocean.com/acme/{}", product.name), digest)
        });
        let secret = digitalocean_secret("registry.digitalocean.com/acme");
        let text = kustomization(&pinned, secret.as_deref()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&root.join("deploy"), &folder.path().join("source/deploy")).unwrap();
        let overlay = folder.path().join("pinned");
        std::fs::create_dir_all(&overlay).unwrap();
        std::fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        let (objects, yaml) = manifests::render_folder(&root, &overlay).unwrap();
        for (_, name, digest) in &pinned {
            assert!(yaml.contains(&format!("image: {name}@{digest}\n")), "{yaml}");
        }
        let accounts: Vec<_> = objects.iter().filter(|object| object["kind"] == "ServiceAccount").collect();
        assert_eq!(accounts.len(), 2);
        for account in accounts {
            assert_eq!(account["imagePullSecrets"][0]["name"], "registry-acme");
        }
    }

    #[test]
    fn the_values_of_the_chart_name_the_same_images_and_the_pull_secret() {
        let pinned = PRODUCTS.map(|product| {
            (
                product.name,
                format!("registry.digitalocean.com/acme/{}", product.name),
                "sha256:0123".to_owned(),
            )
        });
        let text = values(&pinned, Some("registry-acme")).unwrap();
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"images": {
                "controller": "registry.digitalocean.com/acme/egress-controller@sha256:0123",
                "agent": "registry.digitalocean.com/acme/egress-agent@sha256:0123",
                "pullSecrets": ["registry-acme"],
            }})
        );
    }

    #[test]
    fn only_digitaloceans_registry_has_a_pull_secret_of_its_own_accord() {
        assert_eq!(
            digitalocean_secret("registry.digitalocean.com/acme/sub").as_deref(),
            Some("registry-acme")
        );
        assert_eq!(digitalocean_secret("127.0.0.1:5000/acme"), None);
    }

    #[test]
    fn a_registry_is_a_host_and_a_path() {
        assert_eq!(checked("registry.digitalocean.com/acme/").unwrap(), "registry.digitalocean.com/acme");
        assert_eq!(checked("127.0.0.1:5000").unwrap(), "127.0.0.1:5000");
        for wrong in
            ["", "https://registry.digitalocean.com/acme", "registry.digitalocean.com/acme:1.0", "a b"]
        {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }
}
