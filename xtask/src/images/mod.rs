//! OCI images of controller and agent, written without a container engine.
//!
//! An image is the release binary, the shared libraries that this machine's loader gives it, CA certificates and the handful of
//! files under /etc that glibc reads: no shell, no package manager. The same inputs give the same bytes, so a digest says
//! something. The archives are OCI layouts that `ctr images import` and `skopeo copy oci-archive:` read.

mod content;
mod layout;
mod libraries;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tree;
use content::{Content, Entry};
use layout::Image;

/// One image of ours.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Binary, archive and name in `deploy/base`.
    pub name: &'static str,
    /// Uid and gid it runs as unless the pod says otherwise.
    user: &'static str,
    title: &'static str,
}

/// The images.
pub const PRODUCTS: [Product; 2] = [
    Product { name: "egress-controller", user: "65532:65532", title: "Egress Gateway controller" },
    // Root, because a pod's non-root user is given no capability.
    Product { name: "egress-agent", user: "0:0", title: "Egress Gateway node agent" },
];

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Registry and path before the image's name, as the lab overlay has it.
    #[arg(long, default_value = "egress-lab.local")]
    prefix: String,
    /// Tag, as the lab overlay has it.
    #[arg(long, default_value = "dev")]
    tag: String,
    /// Take the release binaries as they are.
    #[arg(long)]
    no_build: bool,
}

/// Builds the binaries, then target/images/<name>.tar.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    if !arguments.no_build {
        let mut cargo = Command::new(env!("CARGO"));
        // All of them: alone, these two would be built with fewer features of their dependencies, and not be what the tests ran.
        cargo.args(["build", "--release", "--locked", "--bins", "--workspace"]).current_dir(root);
        tree::run(&mut cargo)?;
    }
    for product in PRODUCTS {
        let reference = format!("{}/{}:{}", arguments.prefix, product.name, arguments.tag);
        let binary = target(root).join("release").join(product.name);
        let size = build(&product, &binary, &reference, &archive(root, product.name))?;
        println!("built target/images/{}.tar: {reference}, {} kB", product.name, size / 1000);
    }
    Ok(())
}

/// Where an image's archive lies.
pub fn archive(root: &Path, name: &str) -> PathBuf {
    target(root).join("images").join(format!("{name}.tar"))
}

/// Cargo's target folder.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

fn build(product: &Product, binary: &Path, reference: &str, archive: &Path) -> Result<usize> {
    if !binary.is_file() {
        bail!("{} has not been built", product.name);
    }
    let libraries = libraries::of(binary)?;
    let layers = vec![
        // What rarely changes comes first: a registry and a node hold it once for both images and for many versions.
        base_layer(&libraries)?.into_layer()?,
        Content::new()
            .with(Entry::program(&format!("usr/local/bin/{}", product.name), read(binary)?))
            .into_layer()?,
    ];
    let image = Image {
        reference,
        title: product.title,
        version: env!("CARGO_PKG_VERSION"),
        entrypoint: &format!("/usr/local/bin/{}", product.name),
        user: product.user,
        layers,
    };
    let bytes = image.archive()?;
    if let Some(folder) = archive.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Whoever imports it never sees half an archive.
    let unfinished = archive.with_extension("tar.new");
    std::fs::write(&unfinished, &bytes)?;
    std::fs::rename(&unfinished, archive).context("cannot put the archive in place")?;
    Ok(bytes.len())
}

// Both products are linked against the same libraries, so this layer is the same for both.
fn base_layer(libraries: &[PathBuf]) -> Result<Content> {
    let mut content = Content::new()
        .with(Entry::file("etc/passwd", PASSWD))
        .with(Entry::file("etc/group", GROUP))
        .with(Entry::file("etc/nsswitch.conf", "hosts: files dns\n"))
        .with(Entry::file(CERTIFICATES, &certificates()?));
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(library).to_string_lossy().into_owned();
        content = content.with(Entry::program(&inside, read(library)?));
    }
    Ok(content)
}

const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\negress:x:65532:65532:egress:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\negress:x:65532:\n";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
const CERTIFICATE_SOURCE: &str = "/usr/share/ca-certificates/mozilla";

// The distribution's own, one by one: what else this machine trusts is no business of an image.
fn certificates() -> Result<String> {
    let source = Path::new(CERTIFICATE_SOURCE);
    let files = tree::files(source, ".crt").context("Debian package ca-certificates is needed")?;
    if files.is_empty() {
        bail!("{CERTIFICATE_SOURCE} is empty; Debian package ca-certificates is needed");
    }
    let mut bundle = String::new();
    for file in files {
        bundle += std::fs::read_to_string(&file)?.trim_end();
        bundle += "\n";
    }
    Ok(bundle)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests;
