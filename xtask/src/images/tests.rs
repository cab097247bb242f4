//! An archive of a real program of this machine, read back by programs that nobody here wrote.

use std::io::Read;
use std::process::Command;

use serde_json::Value;

use super::*;

const PRODUCT: Product = Product { name: "true", user: "65532:65532", title: "A test" };

fn build_true(folder: &Path) -> PathBuf {
    let archive = folder.join("true.tar");
    build(&PRODUCT, Path::new("/bin/true"), "lab.invalid/true:dev", &archive).unwrap();
    archive
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (build_true(first.path()), build_true(second.path()));
    assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
}

#[test]
fn skopeo_reads_the_archive_and_sees_user_entrypoint_and_platform() {
    let folder = tempfile::tempdir().unwrap();
    let archive = build_true(folder.path());
    let inspect = |extra: &[&str]| -> Value {
        let source = format!("oci-archive:{}", archive.display());
        let text = tree::output(Command::new("skopeo").arg("inspect").args(extra).arg(source)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let config = inspect(&["--config"]);
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/true");
    assert_eq!(config["os"], "linux");
    assert_eq!(inspect(&[])["Layers"].as_array().unwrap().len(), 2);
}

// The layers, unpacked and entered, are all the program needs.
#[test]
fn the_program_runs_with_nothing_but_its_layers() {
    let folder = tempfile::tempdir().unwrap();
    let archive = build_true(folder.path());
    let root = folder.path().join("root");
    let mut blobs = tar::Archive::new(std::fs::File::open(archive).unwrap());
    for blob in blobs.entries().unwrap() {
        let mut bytes = Vec::new();
        blob.unwrap().read_to_end(&mut bytes).unwrap();
        // Layers are the blobs that are archives themselves.
        if bytes.get(257..262) == Some(b"ustar") {
            tar::Archive::new(bytes.as_slice()).unpack(&root).unwrap();
        }
    }
    assert!(root.join("etc/ssl/certs/ca-certificates.crt").metadata().unwrap().len() > 100_000);
    let done = Command::new("chroot").arg(&root).arg("/usr/local/bin/true").output();
    let done = done.unwrap();
    assert!(done.status.success(), "needs root; chroot said: {}", String::from_utf8_lossy(&done.stderr));
}
