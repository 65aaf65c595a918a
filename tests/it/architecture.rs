//! What ARCHITECTURE.md says of the states, and what the module rules say of the imports, is what the code does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clawback::ledger::{ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use sea_orm::Iterable;

type Arrow = (String, String, String);

#[test]
fn the_charts_in_architecture_md_are_the_state_machines() {
    let mut allowed = BTreeSet::new();
    for from in TransferStatus::iter() {
        for event in TransferEvent::iter() {
            if let Ok(to) = from.after(event) {
                allowed.insert((from.to_string(), to.to_string(), format!("{event:?}")));
            }
        }
    }
    for from in ReversalStatus::iter() {
        for event in ReversalEvent::iter() {
            if let Ok(to) = from.after(event) {
                allowed.insert((from.to_string(), to.to_string(), format!("{event:?}")));
            }
        }
    }
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let charts: BTreeSet<Arrow> = text.lines().filter_map(arrow).collect();
    assert_eq!(charts, allowed);
}

/// A transfer, a reversal or a claim changes its status through `Book::move_…`, which asks the state machine and records it.
#[test]
fn only_the_ledger_writes_a_status() {
    const BOOK: &str = "src/ledger/book.rs";
    let moves = |text: &str| lines_of_code(text).filter(|line| line.contains(".status.after(")).count();
    for (file, text) in sources("src") {
        if file == BOOK {
            assert_eq!(moves(&text), 2, "{file} has one place for each state machine");
            continue;
        }
        assert_eq!(moves(&text), 0, "{file} asks a state machine: statuses are {BOOK}'s");
        for line in lines_of_code(&text) {
            assert!(!assigns_a_status(line), "{file} assigns a status, which only {BOOK} may: {line}");
            let by_sql = ["SET status", "UPDATE seller_transfers", "UPDATE reversals", "UPDATE claims"];
            let by_entity = ["ActiveModel {", "ActiveModelTrait", "IntoActiveModel", "Column::Status, Expr"];
            let is_entity = line.contains("impl ActiveModelBehavior for");
            let sign = by_sql.iter().chain(&by_entity).find(|sign| line.contains(**sign) && !is_entity);
            assert!(sign.is_none(), "{file} writes rows past {BOOK}: {line}");
        }
        let copy = copies_with_another_status(&text);
        assert!(copy.is_none(), "{file} copies a row with another status, which only {BOOK} may: {}", copy.unwrap());
    }
    // The sweep writes calls alone, which have no status; remarks are history; operations have tables of their own.
    for (sign, writers) in [
        (
            "Writes::new(",
            &[
                "src/ledger/calls/sweep.rs",
                "src/ledger/group_notes.rs",
                "src/ledger/operations/at_stripe.rs",
                "src/ledger/operations/mod.rs",
                "src/ledger/operations/preview.rs",
                "src/ledger/operations/work.rs",
                "src/ledger/pauses.rs",
                "src/ledger/read/remarks.rs",
                "src/ledger/runs.rs",
            ][..],
        ),
        ("update_many(", &[]),
    ] {
        let found = sources("src").into_iter().filter(|(file, text)| file != BOOK && text.contains(sign));
        let found: Vec<String> = found.map(|(file, _)| file).collect();
        assert_eq!(found, writers, "{sign}");
    }
}

/// `row.status = …`, also as part of a tuple.
fn assigns_a_status(line: &str) -> bool {
    let assignment = line.match_indices(" = ").any(|(at, _)| {
        let place = line[..at].rsplit([';', '{', '|']).next().unwrap_or_default();
        !place.contains("let ") && (place.ends_with(".status") || (place.ends_with(')') && place.contains(".status,")))
    });
    assignment || line.contains("&mut row.status")
}

/// `Model { status: …, ..row }`. A literal without `..` is a new row.
fn copies_with_another_status(text: &str) -> Option<&str> {
    text.match_indices("Model {").map(|(at, _)| &text[at..]).find_map(|rest| {
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(at, letter)| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            (letter == '}' && depth == 0).then_some(at)
        })?;
        let literal = &rest[..=end];
        let fields = || literal.split(['{', ',', '\n']).map(str::trim);
        let has_status = fields().any(|field| field == "status" || field.starts_with("status:"));
        (has_status && fields().any(|field| field.starts_with(".."))).then_some(literal)
    })
}

fn lines_of_code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn imports_run_one_way() {
    let forbidden = [
        ("src/ledger/", &["crate::stripe", "crate::relay", "crate::worker", "crate::http", "queues::"][..]),
        ("src/stripe/", &["crate::ledger", "crate::relay", "crate::worker", "crate::config", "queues::", "sea_orm"]),
        ("src/http/", &["crate::relay", "crate::stripe::", "crate::cli", "crate::config", "ledger::schema"]),
        ("src/ui/", &["crate::relay", "crate::stripe::", "crate::cli", "crate::config", "ledger::schema"]),
        ("src/http/webhooks/", &["crate::worker", "queues::"]),
        ("src/relay/", &["crate::stripe", "crate::worker", "crate::http"]),
        (
            "src/operator/",
            &["crate::stripe", "crate::relay", "crate::worker", "crate::http", "crate::config", "sea_orm"],
        ),
        ("src/worker/", &["crate::relay", "crate::http", "crate::config"]),
    ];
    for (folder, names) in forbidden {
        for (file, text) in sources(folder) {
            // A type that settings and the API share.
            for line in lines_of_code(&text).filter(|line| line.trim() != "use crate::config::SecretList;") {
                let found = names.iter().find(|name| line.contains(**name));
                assert!(found.is_none(), "{file} must not know {}: {line}", found.unwrap());
            }
        }
    }
    for (file, text) in sources("src/http/").into_iter().chain(sources("src/ui/")) {
        for line in text.lines() {
            let health_only = ["crate::worker", "queues::"].iter().any(|name| line.contains(name));
            let is_state =
                ["ConnectionState", "CircuitState", "Limiter", "QueueStatus"].iter().any(|name| line.contains(name));
            assert!(
                !health_only || is_state,
                "{file} may know no more than states of the worker and the broker: {line}"
            );
        }
    }
    for (folder, names) in
        [("queues/src", &["clawback::", "sea_orm", "stripe"][..]), ("outbox/src", &["clawback", "stripe"])]
    {
        for (file, text) in sources(folder) {
            let ours = names.iter().find(|name| text.to_lowercase().contains(**name));
            assert_eq!(ours, None, "{file}: a library knows nothing of the application");
        }
    }
    // The relay is the crate's; the ledger hands it what was committed, and knows no more of it.
    for (file, text) in sources("src").into_iter().filter(|(file, _)| !file.starts_with("src/relay/")) {
        for line in lines_of_code(&text).filter(|line| line.contains(" outbox::") || line.contains("::outbox::")) {
            let is_crate =
                line.contains("use outbox::") || line.contains("<::outbox::") || line.contains(" ::outbox::");
            let is_handoff = file.starts_with("src/ledger/") && line.contains("::outbox::Handoff<");
            assert!(!is_crate || is_handoff, "{file} may know no more of the crate than the hand-over: {line}");
        }
    }
}

/// A stop names functions, and the files that have them: by the whole path first, by the name alone afterwards.
#[test]
fn the_walks_in_architecture_md_name_what_there_is() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for title in ["From a webhook's bytes to the outbox row", "From a delivery to the ack"] {
        let (_, walk) = text.split_once(&format!("## {title}\n")).unwrap();
        let walk = walk.split("\n## ").next().unwrap();
        let is_stop = |line: &&str| line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        let stops: Vec<&str> = walk.lines().filter(is_stop).collect();
        let mut files: Vec<&str> = Vec::new();
        for stop in &stops {
            let quoted = || stop.split('`').skip(1).step_by(2);
            let new: Vec<&str> = quoted().filter(|it| it.contains('/') && !files.contains(it)).collect();
            files.extend(new);
            let named = quoted().filter(|it| it.ends_with(".rs"));
            let named = named.map(|name| *files.iter().find(|file| file.ends_with(name)).expect(name));
            let code: String = named.map(|file| std::fs::read_to_string(root().join(file)).expect(file)).collect();
            let functions = quoted().filter_map(|it| it.rsplit("::").next());
            let functions =
                functions.filter(|it| it.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'));
            for function in functions {
                assert!(code.contains(&format!("fn {function}")), "{function} is in no file of the stop {stop}");
            }
        }
        let said = format!("{} stops in {} files", stops.len(), files.len());
        assert!(walk.contains(&said), "{title}: {said}: {files:?}");
    }
}

/// docs/proof.md names what shows each promise: files, and tests by their full names.
#[test]
fn every_test_that_proof_md_names_exists() {
    let text = std::fs::read_to_string(root().join("docs/proof.md")).unwrap();
    let promises = text.split("## What holds").nth(1).unwrap().split("\n## ").next().unwrap();
    let code: String =
        ["src", "tests", "queues", "outbox"].iter().flat_map(|folder| sources(folder)).map(|(_, text)| text).collect();
    let mut names = 0;
    for line in promises.lines().filter(|line| line.starts_with("| ")) {
        for quoted in line.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2) {
            if quoted.ends_with(".rs") {
                let exists =
                    [quoted.to_owned(), format!("tests/it/{quoted}")].iter().any(|path| root().join(path).is_file());
                assert!(exists, "docs/proof.md names the file {quoted}");
            } else if quoted.contains('_') && !quoted.contains(' ') {
                assert!(code.contains(&format!("fn {quoted}(")), "docs/proof.md names the test {quoted}");
                names += 1;
            }
        }
    }
    assert!(names > 60, "{names} tests are named");
}

/// `from --> to: Event`, as in a Mermaid state diagram.
fn arrow(line: &str) -> Option<Arrow> {
    let (from, rest) = line.trim().split_once(" --> ")?;
    let (to, event) = rest.split_once(": ")?;
    (!from.contains(' ') && !to.contains(' ')).then(|| (from.to_owned(), to.to_owned(), event.to_owned()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`: its path from the root, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} has no Rust files");
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}
