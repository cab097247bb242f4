//! Container images without a registry: archives written here, imported into every node's containerd.
//!
//! The standard images are made of the machine's own Debian packages: a sandbox ("pause") that is busybox asleep, and curl with
//! its libraries under the names that the examples use.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::node::read;
use crate::error::{Doing, LabError, Result};
use crate::netns::output_of;
use crate::network::addresses::{NODES, Node};
use crate::processes;
use crate::state::{Lab, hex, write_file};

const PAUSE: &str = "registry.k8s.io/pause:3.10.1";
/// As the manifest in `dns.yaml` says.
const COREDNS: &str = "egress-lab.local/coredns:pinned";
/// The names under which the examples ask for curl.
const CURL: [&str; 3] = [
    "docker.io/curlimages/curl:7.80.0",
    "docker.io/curlimages/curl:8.5.0",
    "docker.io/curlimages/curl:latest",
];

/// A file, symbolic link or folder of an image.
enum Entry {
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
    Folder { mode: u32 },
}

/// Writes the archives of the standard images into the lab's folder; their paths.
pub fn write_standard_images(lab: &Lab) -> Result<Vec<PathBuf>> {
    let busybox = find(&["/usr/bin/busybox", "/bin/busybox"], "busybox-static")?;
    let curl = find(&["/usr/bin/curl"], "curl")?;
    let folder = lab.dir.join("images");
    crate::state::create_private_dir(&folder)?;

    let pause = vec![("bin/busybox".to_owned(), Entry::File { content: read(&busybox)?, mode: 0o755 })];
    let asleep = json!({"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]});
    let pause_path = folder.join("pause.tar");
    write_file(&pause_path, &archive(&[PAUSE], &asleep, pause)?)?;

    let mut entries = vec![
        ("bin/busybox".to_owned(), Entry::File { content: read(&busybox)?, mode: 0o755 }),
        ("bin/curl".to_owned(), Entry::File { content: read(&curl)?, mode: 0o755 }),
        ("entrypoint.sh".to_owned(), Entry::File { content: ENTRYPOINT.as_bytes().to_vec(), mode: 0o755 }),
        ("etc/passwd".to_owned(), Entry::File { content: PASSWD.as_bytes().to_vec(), mode: 0o644 }),
        ("tmp".to_owned(), Entry::Folder { mode: 0o1777 }),
    ];
    let mut list = Command::new(&busybox);
    list.arg("--list");
    for applet in output_of(list, "")?.lines().filter(|applet| !matches!(*applet, "busybox" | "curl")) {
        entries.push((format!("bin/{applet}"), Entry::Link { target: "busybox".into() }));
    }
    for library in libraries(&curl)? {
        let name = library.display().to_string().trim_start_matches('/').to_owned();
        entries.push((name, Entry::File { content: read(&library)?, mode: 0o755 }));
    }
    let config = json!({
        "Entrypoint": ["/entrypoint.sh"],
        "Cmd": ["curl", "--help"],
        "Env": ["PATH=/bin"],
        "User": "100",
    });
    let curl_path = folder.join("curl.tar");
    write_file(&curl_path, &archive(&CURL, &config, entries)?)?;

    let coredns =
        vec![("coredns".to_owned(), Entry::File { content: read(&lab.asset("coredns")?)?, mode: 0o755 })];
    let coredns_path = folder.join("coredns.tar");
    write_file(&coredns_path, &archive(&[COREDNS], &json!({"Entrypoint": ["/coredns"]}), coredns)?)?;
    Ok(vec![pause_path, coredns_path, curl_path])
}

/// As in the image of that name: arguments alone are curl's.
const ENTRYPOINT: &str = "#!/bin/sh\nset -e\nif [ \"${1#-}\" != \"$1\" ] || [ -z \"$(command -v \"$1\")\" ]; then\n  \
                          set -- curl \"$@\"\nfi\nexec \"$@\"\n";
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\ncurl_user:x:100:101::/tmp:/bin/sh\n";

fn find(paths: &[&str], package: &str) -> Result<PathBuf> {
    let found = paths.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| LabError::Usage(format!("{} is missing: apt-get install {package}", paths[0])))
}

/// The shared libraries of a program and its loader, as `ldd` lists them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    Ok(parse_ldd(&output_of(ldd, "")?))
}

fn parse_ldd(listing: &str) -> Vec<PathBuf> {
    let paths = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// A `docker save` archive of one image with one layer.
fn archive(names: &[&str], config: &serde_json::Value, entries: Vec<(String, Entry)>) -> Result<Vec<u8>> {
    let layer = layer(entries)?;
    let digest = hex(&Sha256::digest(&layer));
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let image = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    let file = |content: Vec<u8>| Entry::File { content, mode: 0o644 };
    let parts = vec![
        ("config.json".to_owned(), file(image.to_string().into_bytes())),
        ("layer.tar".to_owned(), file(layer)),
        ("manifest.json".to_owned(), file(manifest.to_string().into_bytes())),
    ];
    layer_of(parts)
}

fn layer(mut entries: Vec<(String, Entry)>) -> Result<Vec<u8>> {
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    layer_of(entries)
}

fn layer_of(entries: Vec<(String, Entry)>) -> Result<Vec<u8>> {
    let what = || "write an image".to_owned();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, entry) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        match entry {
            Entry::File { content, mode } => {
                header.set_mode(mode);
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, Cursor::new(content)).doing(what)?;
            }
            Entry::Link { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                builder.append_link(&mut header, name, target).doing(what)?;
            }
            Entry::Folder { mode } => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(mode);
                header.set_size(0);
                builder.append_data(&mut header, name, std::io::empty()).doing(what)?;
            }
        }
    }
    builder.into_inner().doing(what)
}

/// Imports an image archive into every node.
pub fn load(lab: &Lab, archive: &Path) -> Result<()> {
    let archive = std::path::absolute(archive).doing(|| format!("resolve {}", archive.display()))?;
    if !archive.exists() {
        return Err(LabError::Usage(format!("{} does not exist", archive.display())));
    }
    let archive = archive.display().to_string();
    std::thread::scope(|scope| {
        let imports: Vec<_> = NODES
            .iter()
            .map(|node| {
                let archive = &archive;
                scope.spawn(move || ctr(lab, node, &["--namespace", "k8s.io", "images", "import", archive]))
            })
            .collect();
        for import in imports {
            import.join().unwrap_or_else(|_| Err(LabError::Usage("an import died".into())))?;
        }
        Ok(())
    })
}

/// Runs containerd's client in a node; what it prints.
pub(super) fn ctr(lab: &Lab, node: &Node, arguments: &[&str]) -> Result<String> {
    let anchor = processes::running(&lab.dir, node.name)?
        .ok_or_else(|| LabError::Usage(format!("{} is not running", node.name)))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &anchor.pid.to_string(), "--mount", "--net", "--"]);
    command.arg(lab.asset("ctr")?).args(arguments);
    output_of(command, "")
}

/// Name of the node on which a pod is, and id of a process in the pod's network.
pub fn pod_process(lab: &Lab, namespace: &str, name: &str) -> Result<(&'static str, u32)> {
    let filter = format!(
        "labels.\"io.kubernetes.pod.namespace\"=={namespace},labels.\"io.kubernetes.pod.name\"=={name},\
         labels.\"io.cri-containerd.kind\"==sandbox"
    );
    for node in &NODES {
        let sandboxes = ctr(lab, node, &["--namespace", "k8s.io", "containers", "list", "--quiet", &filter])?;
        let tasks = ctr(lab, node, &["--namespace", "k8s.io", "tasks", "list"])?;
        if let Some(pid) = running_task(&sandboxes, &tasks) {
            return Ok((node.name, pid));
        }
    }
    Err(LabError::Usage(format!("no node runs a pod {namespace}/{name}")))
}

/// Process of the first of those containers that runs. A pod may have sandboxes that ended.
fn running_task(containers: &str, tasks: &str) -> Option<u32> {
    tasks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_wanted = containers.lines().any(|one| Some(&one) == fields.first());
        (is_wanted && fields.get(2) == Some(&"RUNNING")).then(|| fields.get(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_ended_is_no_pod() {
        let tasks =
            "TASK    PID    STATUS\naaa    11    STOPPED\nbbb    12    RUNNING\nccc    13    RUNNING\n";
        assert_eq!(running_task("aaa\nbbb\n", tasks), Some(12));
        assert_eq!(running_task("aaa\n", tasks), None);
    }

    #[test]
    fn libraries_are_the_paths_that_ldd_names() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibcurl.so.4 => /lib/x86_64-linux-gnu/libcurl.so.4 (0x1)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let found = parse_ldd(listing);
        assert_eq!(
            found,
            [PathBuf::from("/lib/x86_64-linux-gnu/libcurl.so.4"), "/lib64/ld-linux-x86-64.so.2".into()]
        );
    }

    #[test]
    fn an_archive_names_the_digest_of_its_layer() {
        let entries = vec![("a".to_owned(), Entry::File { content: b"b".to_vec(), mode: 0o644 })];
        let bytes = archive(&["x:1"], &json!({}), entries).unwrap();
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(Cursor::new(bytes)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let digest = hex(&Sha256::digest(&files["layer.tar"]));
        let config: serde_json::Value = serde_json::from_slice(&files["config.json"]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{digest}"));
    }
}
