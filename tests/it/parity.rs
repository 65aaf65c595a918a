//! What the pages can do, the API and the commands can.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Backend, TestApp};

/// Each form of the pages: what it does, the route that does the same, and the command.
const ACTS: [(&str, &str, &[&str]); 17] = [
    ("act accept (refund)", "/v1/refunds/{id}/accept", &["refunds", "accept"]),
    ("act accept (dispute)", "/v1/disputes/{id}/accept", &["disputes", "accept"]),
    ("act acknowledge (refund)", "/v1/refunds/{id}/acknowledge", &["refunds", "acknowledge"]),
    ("act acknowledge (dispute)", "/v1/disputes/{id}/acknowledge", &["disputes", "acknowledge"]),
    ("act replay", "/v1/reversals/{id}/replay", &["reversals", "replay"]),
    ("act replay (look-up, event)", "/v1/calls/{id}/replay", &["calls", "replay"]),
    ("act close", "/v1/reversals/{id}/close", &["reversals", "close"]),
    ("act retry", "/v1/transfers/{id}/retry", &["transfers", "retry"]),
    ("groups/note (reversals)", "/v1/reversals/groups/{key}/notes", &["reversals", "note"]),
    ("groups/note (transfers)", "/v1/transfers/groups/{key}/notes", &["transfers", "note"]),
    ("operations", "/v1/operations", &["operations", "preview"]),
    ("operations start", "/v1/operations/{id}/start", &["operations", "start"]),
    ("operations abort", "/v1/operations/{id}/abort", &["operations", "abort"]),
    ("pauses", "/v1/pauses", &["pause"]),
    ("pauses resume", "/v1/pauses/{id}/resume", &["resume"]),
    ("breaker probe", "/v1/breaker/probe", &["breaker", "probe"]),
    // A row's message: replaying the row, and discarding as an operation on its id, are the same over the API.
    ("parked/message", "/v1/operations", &["parked", "replay"]),
];
/// The forms that these are, apart from those that log in and out.
const FORMS: [&str; 9] = [
    "/ui/act/{verb}",
    "/ui/breaker/probe",
    "/ui/groups/note",
    "/ui/operations",
    "/ui/operations/{id}/abort",
    "/ui/operations/{id}/start",
    "/ui/parked/message",
    "/ui/pauses",
    "/ui/pauses/{id}/resume",
];
/// Each page, and the route and the command that show the same.
const PAGES: [(&str, &str, &[&str]); 18] = [
    ("/ui/", "/v1/summary", &["summary"]),
    ("/ui/attention", "/v1/refunds", &["refunds", "list"]),
    ("/ui/audit", "/v1/history", &["history"]),
    ("/ui/disputes", "/v1/disputes", &["disputes", "list"]),
    ("/ui/doctor", "/v1/doctor", &["doctor"]),
    ("/ui/held", "/v1/refunds", &["refunds", "list"]),
    ("/ui/operations", "/v1/operations", &["operations", "list"]),
    ("/ui/operations/{id}", "/v1/operations/{id}", &["operations", "show"]),
    ("/ui/parked", "/v1/reversals/groups", &["reversals", "groups"]),
    ("/ui/parked", "/v1/calls", &["calls", "list"]),
    ("/ui/queues", "/v1/queues", &["queues", "verify"]),
    ("/ui/reconcile", "/v1/reconcile/runs", &["reconcile", "list"]),
    ("/ui/reconcile/{id}", "/v1/reconcile/runs/{id}", &["reconcile", "show"]),
    ("/ui/refunds", "/v1/refunds", &["refunds", "list"]),
    ("/ui/reversals", "/v1/reversals", &["reversals", "list"]),
    ("/ui/sellers", "/v1/sellers", &["sellers", "list"]),
    ("/ui/trace", "/v1/trace/{id}", &["trace"]),
    ("/ui/transfers", "/v1/transfers", &["transfers", "list"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_the_pages_can_do_the_api_and_the_commands_can() {
    TestApp::run(Backend::Sqlite, async |app| {
        let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ui/mod.rs")).unwrap();
        let routes: Vec<(&str, &str)> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once("\", "))
            .filter(|(path, _)| path.starts_with("/ui/") && !path.contains("log") && !path.contains('*'))
            .collect();
        let forms: BTreeSet<&str> =
            routes.iter().filter(|(_, handlers)| handlers.contains("post(")).map(|(path, _)| *path).collect();
        assert_eq!(forms, BTreeSet::from(FORMS), "a form of the pages that ACTS does not know, or one that is gone");
        let is_page = |path: &str| !FORMS.contains(&path) || path == "/ui/operations";
        let pages = routes.iter().filter(|(path, _)| is_page(path) && !path.contains('.')).map(|(path, _)| *path);
        assert_eq!(pages.collect::<BTreeSet<_>>(), PAGES.iter().map(|(page, ..)| *page).collect());

        let document: Value =
            app.http.get(format!("{}/openapi.json", app.base_url)).send().await.unwrap().json().await.unwrap();
        let all = ACTS.iter().map(|act| ("post", act)).chain(PAGES.iter().map(|page| ("get", page)));
        for (method, (what, route, command)) in all {
            assert!(document["paths"][route][method].is_object(), "{what}: no {method} {route}");
            let help = app.cli(&[command, &["--help"][..]].concat()).await;
            assert_eq!(help.code, 0, "{what}: {help:?}");
            assert!(help.stdout.contains(&format!("clawback {}", command.join(" "))), "{what}: {help:?}");
        }
    })
    .await;
}
