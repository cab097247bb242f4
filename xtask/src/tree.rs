//! Where things lie in the tree, and how programs outside of it are run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The folder that holds the workspace.
pub fn root() -> Result<PathBuf> {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = xtask.parent().context("xtask lies in the workspace")?;
    Ok(root.to_path_buf())
}

/// Runs a command and gives its standard output; its standard error goes to ours.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let done = command.stderr(Stdio::inherit()).output().with_context(|| not_found(command.get_program()))?;
    if !done.status.success() {
        bail!("{shown} ended with {}", done.status);
    }
    String::from_utf8(done.stdout).with_context(|| format!("{shown} did not write UTF-8"))
}

/// Runs a command whose output is for the person who started us.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| not_found(command.get_program()))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

fn not_found(program: &OsStr) -> String {
    format!("cannot run {}; `make setup` installs what is needed", program.display())
}

/// kubectl: `$KUBECTL`, the one in `PATH`, else the lab's own.
pub fn kubectl(root: &Path) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("KUBECTL") {
        return Ok(named.into());
    }
    if let Some(found) = in_path("kubectl") {
        return Ok(found);
    }
    let folder = output(Command::new(root.join("tests/control-plane/build.sh")).arg("api"))?;
    Ok(Path::new(folder.trim()).join("kubectl"))
}

/// Helm, of the version that the tests rely on: `$HELM`, else the one that is built for them.
#[cfg(test)]
pub fn helm(root: &Path) -> Result<PathBuf> {
    let path = output(&mut Command::new(root.join("tests/helm/build.sh")))?;
    Ok(path.trim().into())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Every file below `folder` whose name ends with `suffix`, in order.
pub fn files(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
