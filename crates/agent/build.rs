//! How the agent is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Thirty thousand addresses are set when the program is loaded. As a table they are 700 KiB that every node reads into memory once and
    // keeps; packed (RELR: binutils 2.38, glibc 2.36; Debian 12 has both) a hundredth of that.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
