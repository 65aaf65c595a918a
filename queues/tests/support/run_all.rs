//! Runs a package's examples.

use super::program;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Runs these programs to their end, side by side; each has printed its parts, one after the other. The package's `examples/`
/// has these and `others`.
pub(crate) fn run_all(package: &str, printed: &[(&str, &[&str])], others: &[&str]) {
    let files = fs::read_dir(Path::new(package).join("examples")).unwrap();
    let mut files: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let mut names: Vec<&str> = printed.iter().map(|(name, _)| *name).chain(others.iter().copied()).collect();
    files.sort_unstable();
    names.sort_unstable();
    assert_eq!(files, names, "every example is run");
    let start = |name| Command::new(program(name)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = printed.iter().map(|(name, parts)| (name, parts, start(name))).collect();
    // All of them, before one fails the test and leaves the others without a listener.
    let ended = children.into_iter().map(|(name, parts, child)| (name, parts, child.wait_with_output().unwrap()));
    for (name, parts, output) in ended.collect::<Vec<_>>() {
        let [text, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{name}: {text}{errors}");
        let mut rest = text.as_str();
        for part in *parts {
            let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{name} lacks {part:?}: {text}"));
            rest = after;
        }
    }
}
