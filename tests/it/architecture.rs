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

#[test]
fn only_the_ledger_writes_a_status() {
    for (file, text) in sources("src") {
        if file.starts_with("src/ledger/") {
            continue;
        }
        for sign in ["Column::Status", "SET status", "ActiveModelTrait", "entities::transfer", "entities::reversal"] {
            assert!(!text.contains(sign), "{file} has {sign}: statuses are the ledger's, through transition.rs");
        }
    }
    let writers: Vec<String> = sources("src/ledger")
        .into_iter()
        .filter(|(_, text)| {
            // With the comma: a refund has a `StatusReason`, too.
            [
                "col_expr(transfer::Column::Status",
                "col_expr(reversal::Column::Status",
                "col_expr(refund::Column::Status, ",
            ]
            .iter()
            .any(|sign| text.contains(sign))
        })
        .map(|(file, _)| file)
        .collect();
    assert_eq!(writers, ["src/ledger/transition.rs"]);
}

#[test]
fn imports_run_one_way() {
    let forbidden = [
        ("src/ledger/", &["crate::stripe", "crate::outbox", "crate::worker", "crate::http", "queues::"][..]),
        ("src/stripe/", &["crate::ledger", "crate::outbox", "crate::worker", "crate::config", "queues::", "sea_orm"]),
        (
            "src/http/",
            &["crate::outbox", "crate::relay", "crate::stripe::", "crate::cli", "crate::config", "ledger::entities"],
        ),
        ("src/http/webhooks/", &["crate::worker", "queues::"]),
        ("src/outbox/", &["crate::stripe", "crate::worker", "crate::http"]),
        (
            "src/operator/",
            &["crate::stripe", "crate::outbox", "crate::worker", "crate::http", "crate::config", "sea_orm"],
        ),
        ("src/worker/", &["crate::outbox", "crate::http", "crate::config"]),
    ];
    for (folder, names) in forbidden {
        for (file, text) in sources(folder) {
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = names.iter().find(|name| line.contains(**name));
                assert!(found.is_none(), "{file} must not know {}: {line}", found.unwrap());
            }
        }
    }
    for (file, text) in sources("src/http/") {
        for line in text.lines() {
            let health_only = ["crate::worker", "queues::"].iter().any(|name| line.contains(name));
            let is_state = ["ConnectionState", "Switch", "Limiter"].iter().any(|name| line.contains(name));
            assert!(
                !health_only || is_state,
                "{file} may know no more than states of the worker and the broker: {line}"
            );
        }
    }
    for (file, text) in sources("queues/src") {
        let ours = ["clawback::", "sea_orm", "stripe"].into_iter().find(|name| text.to_lowercase().contains(name));
        assert_eq!(ours, None, "{file}: the queue library knows nothing of the application");
    }
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
