//! The OpenAPI document is the server: each route of the one is in the other, with the same methods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use crate::support::{Backend, TestApp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_has_every_route_of_the_server_and_no_other_one() {
    TestApp::run(Backend::Sqlite, async |app| {
        let document = document(&app).await;
        let documented = methods_by_path(&document);
        let written: BTreeSet<String> = routes_in_the_source();
        assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), written);
        for (path, methods) in &documented {
            // A method that no route takes is answered with those that it takes.
            let url = format!("{}{}", app.base_url, path.replace(['{', '}'], ""));
            let request = app.http.request(Method::TRACE, url).bearer_auth(&app.api_token);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 405, "{path}");
            let allowed = response.headers()["allow"].to_str().unwrap();
            let allowed: BTreeSet<String> =
                allowed.split(',').filter(|name| *name != "HEAD").map(str::to_lowercase).collect();
            assert_eq!(&allowed, methods, "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_openapi_3_1_and_whole() {
    TestApp::run(Backend::Sqlite, async |app| {
        let document = document(&app).await;
        assert_eq!(document["openapi"], "3.1.0");
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            let pointer = reference.strip_prefix('#').expect(reference);
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        let schemes = document["components"]["securitySchemes"].as_object().unwrap();
        assert!(schemes.values().all(|scheme| scheme["type"] == "http" && scheme["scheme"] == "bearer"));
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                check_operation(&format!("{method} {path}"), operation);
                assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}: its operationId is taken");
                let is_open = operation["security"].as_array().unwrap().contains(&Value::Object(Default::default()));
                let wants_token = path.starts_with("/v1/") || path == "/metrics";
                assert_eq!(is_open, !wants_token, "{path}");
                let reads = operation["security"].to_string().contains("read");
                assert_eq!(reads, wants_token && method == "get", "{method} {path}");
            }
        }
    })
    .await;
}

/// Nothing that OpenAPI requires, or that a reader needs, is missing.
fn check_operation(name: &str, operation: &Value) {
    assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
    let responses = operation["responses"].as_object().unwrap();
    assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
    for (status, response) in responses {
        assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
        assert!(response["headers"]["x-request-id"].is_object(), "{name} {status}");
        if status.starts_with('2') {
            continue;
        }
        let Some(problem) = response["content"].get("application/problem+json") else {
            panic!("{name} {status} is no problem: {response}");
        };
        assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{name} {status}");
        let examples = problem["examples"].as_object().unwrap_or_else(|| panic!("{name} {status} has no example"));
        for example in examples.values() {
            assert!(example["value"]["type"].as_str().unwrap().starts_with("/problems/"), "{name}: {example}");
            assert_eq!(example["value"]["status"].to_string(), *status, "{name}");
        }
    }
}

async fn document(app: &TestApp) -> Value {
    app.http.get(format!("{}/openapi.json", app.base_url)).send().await.unwrap().json().await.unwrap()
}

fn methods_by_path(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), item.as_object().unwrap().keys().cloned().collect())).collect()
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// The paths that the source gives to axum. Its routers tell nobody what they route.
fn routes_in_the_source() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ["src/http/mod.rs", "src/http/webhooks/mod.rs", "src/http/openapi.rs"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        for call in text.split(".route(").skip(1) {
            let path = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            found.insert(path.unwrap_or_else(|| panic!("{file} routes a path that is not written there")).to_owned());
        }
    }
    found
}
