//! Generated files and checks of this repository.

fn main() {}
