//! crds/: one file per CRD, from the types of crates/api.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{generated, tree};

const HEADER: &str = "# Generated from crates/api by `cargo xtask crdgen`. Do not edit.\n";

const KUSTOMIZATION: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n";

/// Writes the CRDs, or compares them.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let folder = root.join("crds");
    let mut expected = Vec::new();
    let mut kustomization = format!("{HEADER}{KUSTOMIZATION}");
    for (file, crd) in egress_api::custom_resource_definitions() {
        let yaml = serde_saphyr::to_string(&crd).with_context(|| format!("cannot write {file} as YAML"))?;
        let path = folder.join(file);
        generated::write_or_compare(
            &path,
            &format!("{HEADER}{}\n", yaml.trim_end()),
            check,
            "cargo xtask crdgen",
        )?;
        kustomization += "  - ";
        kustomization += file;
        kustomization += "\n";
        expected.push(path);
    }
    let path = folder.join("kustomization.yaml");
    generated::write_or_compare(&path, &kustomization, check, "cargo xtask crdgen")?;
    expected.push(path);
    for path in tree::files(&folder, ".yaml")? {
        if !expected.contains(&path) {
            bail!(
                "{} belongs to no type of crates/api; remove it",
                path.file_name().unwrap_or_default().display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn yaml_says_what_the_types_say() {
        for (file, crd) in egress_api::custom_resource_definitions() {
            let yaml = serde_saphyr::to_string(&crd).unwrap();
            let read: Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(read, serde_json::to_value(&crd).unwrap(), "{file}");
        }
    }
}
