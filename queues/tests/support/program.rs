//! Where the programs of a package's `examples/` are.

use std::{env, path::PathBuf};

pub(crate) fn program(name: &str) -> PathBuf {
    // Examples are built beside the tests, whose own executable is in `deps`.
    let folder = env::current_exe().unwrap().parent().and_then(|deps| Some(deps.parent()?.to_owned())).unwrap();
    let program = folder.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is missing: build it with `cargo build --examples`", program.display());
    program
}
