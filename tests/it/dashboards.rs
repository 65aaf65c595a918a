//! Dashboard and alert rules, against a real Prometheus that scrapes a running Clawback and the broker.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::{Backend, Process, TestApp, eventually, free_address, required};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

async fn promtool(arguments: &[&str]) -> Output {
    let run = Command::new("promtool").args(arguments).current_dir(root()).output().await;
    run.expect("promtool is not installed: run the tests with `./dev test`, which installs it")
}

#[tokio::test]
async fn the_alert_rules_are_sound_and_fire_when_they_should() {
    for arguments in
        [["check", "rules", "deploy/prometheus/alerts.yml"], ["test", "rules", "tests/prometheus/alerts_test.yml"]]
    {
        let run = promtool(&arguments).await;
        assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&[run.stdout, run.stderr].concat()));
    }
}

#[test]
fn each_alert_is_seen_to_fire_and_not_to_fire() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("tests/prometheus/alerts_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        for seen in [format!("alertname: {alert}\n"), format!("alertname: {alert}, exp_alerts: []")] {
            assert!(tests.contains(&seen), "alerts_test.yml has no {seen:?}");
        }
    }
}

/// A Prometheus of its own. Killed when dropped.
struct Prometheus {
    base_url: String,
    http: reqwest::Client,
    _child: Child,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// With the configuration of the compose stack, on other targets and every second.
    fn start(app: &TestApp, worker: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, &app.read_token).unwrap();
        let config = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml")).unwrap();
        let serve = app.base_url.strip_prefix("http://").unwrap();
        let config = [
            ("15s", "1s"),
            ("/run/secrets/metrics-token", token.to_str().unwrap()),
            ("serve:8080", serve),
            ("worker:8081", worker),
            ("rabbitmq:15692", &rabbitmq()),
        ]
        .iter()
        .fold(config, |config, (from, to)| {
            assert!(config.contains(from), "prometheus.yml has no {from}");
            config.replace(from, to)
        });
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        std::fs::copy(root().join("deploy/prometheus/alerts.yml"), dir.path().join("alerts.yml")).unwrap();
        let address = free_address();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", file("data")))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is not installed: run the tests with `./dev test`, which installs it");
        Self { base_url: format!("http://{address}"), http: reqwest::Client::new(), _child: child, _dir: dir }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let answer = self.http.get(format!("{}{path}", self.base_url)).query(query).send().await.ok()?;
        answer.json().await.ok()
    }

    /// How many series a query returns, once it returns any.
    async fn returns_a_series(&self, query: &str) {
        let query = query.replace("$__rate_interval", "30s");
        eventually(&format!("a series of {query}"), || async {
            let answer = self.get("/api/v1/query", &[("query", &query)]).await?;
            assert_eq!(answer["status"], "success", "{query}: {answer}");
            (!answer["data"]["result"].as_array()?.is_empty()).then_some(())
        })
        .await;
    }
}

/// Where the broker's plugin `rabbitmq_prometheus` listens: beside the management API, as `./dev` has it.
fn rabbitmq() -> String {
    std::env::var("RABBITMQ_PROMETHEUS").unwrap_or_else(|_| {
        let management = url::Url::parse(&required("RABBITMQ_MANAGEMENT_URL")).unwrap();
        format!("{}:{}", management.host_str().unwrap(), management.port().unwrap() + 1)
    })
}

/// Every query of the dashboard.
fn dashboard() -> Vec<String> {
    let file = root().join("deploy/grafana/dashboards/clawback.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// What an alert compares, also where nothing is wrong: each side, with a comparison as a number.
fn compared(rule: &str) -> Vec<String> {
    let sides = rule.split(" unless on (instance) ").flat_map(|part| part.split(" or "));
    let as_number = |side: &str| {
        [" == ", " > "].iter().fold(side.to_owned(), |side, sign| side.replace(sign, &format!("{sign}bool ")))
    };
    sides.map(as_number).collect()
}

/// Some seconds: a rate needs two scrapes, and a rule an evaluation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboard_and_of_the_alerts_finds_what_it_asks_for() {
    TestApp::run(Backend::Postgres, async |app| {
        let address = free_address();
        let mut settings = app.settings();
        settings.push(("WORKER_HTTP_ADDR".into(), address.clone()));
        let worker = Process::start("worker", &settings);
        app.refund(10_000).await;
        app.transfer_becomes(0, "reversed").await;
        let prometheus = Prometheus::start(&app, &address);

        let queries = dashboard();
        assert!(queries.len() > 30, "{queries:?}");
        for query in &queries {
            prometheus.returns_a_series(query).await;
        }
        let rules = eventually("the rules were evaluated", || async {
            let rules = prometheus.get("/api/v1/rules", &[]).await?["data"]["groups"][0]["rules"].clone();
            let all = rules.as_array()?.clone();
            all.iter().all(|rule| rule["health"] != "unknown").then_some(all)
        })
        .await;
        let session = log_in(&app).await;
        let runbook = std::fs::read_to_string(root().join("docs/runbook.md")).unwrap();
        for rule in &rules {
            assert_eq!(rule["health"], "ok", "{rule}");
            for query in compared(rule["query"].as_str().unwrap()) {
                prometheus.returns_a_series(&query).await;
            }
            has_a_way_out(&app, &session, &runbook, rule).await;
        }
        assert!(rules.len() > 10, "{rules:?}");
        assert_eq!(worker.terminate().await, Some(0));
    })
    .await;
}

/// The section of the runbook is there, and so is the page, which takes the filter.
async fn has_a_way_out(app: &TestApp, session: &str, runbook: &str, rule: &Value) {
    let annotation = |name: &str| rule["annotations"][name].as_str().unwrap_or_else(|| panic!("no {name}: {rule}"));
    let (file, section) = annotation("runbook").split_once('#').unwrap();
    assert!(Path::new(&root()).join(file).exists(), "{rule}");
    let anchors = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let mut anchors = anchors.map(|title| title.to_lowercase().replace(' ', "-").replace([',', '?'], ""));
    assert!(anchors.any(|anchor| anchor == section), "the runbook has no section #{section}");
    let page = annotation("page").replace("{{ $labels.currency }}", "eur");
    let url = format!("{}{}", app.base_url, page.split('#').next().unwrap());
    let answer = app.http.get(url).header("cookie", session).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{page}");
}

async fn log_in(app: &TestApp) -> String {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let form = format!("token={}&operator=ada", app.read_token);
    let request =
        http.post(format!("{}/ui/login", app.base_url)).header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(form).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}
