//! The pages under `/ui/`, over HTTP, as a browser without scripts sees them.

#[path = "../../examples/ui/sample.rs"]
pub(crate) mod sample;

use std::collections::{BTreeSet, VecDeque};

use clawback::ledger::Note;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::json;

use crate::reconcile::register;
use crate::support::{Backend, TestApp, both_databases, eventually, refund_event, to_create, two_sellers};

/// The most of one page.
const MAX_BYTES: usize = 60 * 1024;

both_databases! {
    every_link_leads_to_a_page_and_text_from_outside_is_text,
    a_group_is_replayed_as_it_was_previewed_and_the_history_says_by_whom_and_why,
    claims_and_debts_are_decided_on_pages_as_over_the_api,
    lists_go_on_page_by_page_and_filter,
    a_large_amount_is_typed_and_what_a_list_shows_can_be_kept,
    each_figure_leads_to_exactly_the_rows_that_it_counts,
    all_that_a_list_of_claims_shows_is_decided_at_once,
    many_groups_and_many_sellers_make_no_large_page,
}

/// What a browser keeps and sees.
pub(crate) struct Pages {
    http: reqwest::Client,
    url: String,
    cookie: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) html: String,
    location: String,
    cookie: Option<String>,
}

impl Pages {
    fn of(app: &TestApp) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, url: app.base_url.clone(), cookie: None }
    }

    pub(crate) async fn logged_in(app: &TestApp, token: &str, operator: &str) -> Self {
        let mut pages = Self::of(app);
        let seen = pages.log_in(token, operator).await;
        assert_eq!((seen.status, seen.location.as_str()), (303, "/ui/"), "{seen:?}");
        pages
    }

    async fn log_in(&mut self, token: &str, operator: &str) -> Seen {
        let seen = self.post("/ui/login", &[("token", token), ("operator", operator)]).await;
        self.cookie = seen.cookie.clone();
        seen
    }

    async fn get(&self, path: &str) -> Seen {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Seen {
        self.send(self.http.post(format!("{}{path}", self.url)).form(form)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Seen {
        let request = self.cookie.iter().fold(request, |request, cookie| request.header(COOKIE, cookie));
        let response = request.send().await.unwrap();
        let headers = response.headers();
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let cookie = text(SET_COOKIE).map(|cookie| cookie.split(';').next().unwrap().to_owned());
        let policy = text(reqwest::header::CONTENT_SECURITY_POLICY).unwrap_or_default();
        if response.url().path() != "/ui" && !policy.is_empty() {
            assert!(
                policy.starts_with("default-src 'none'; style-src 'self'") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
        let (status, location) = (response.status().as_u16(), text(LOCATION).unwrap_or_default());
        Seen { status, location, cookie, html: response.text().await.unwrap() }
    }

    /// A page that is there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let seen = self.get(path).await;
        assert_eq!(seen.status, 200, "{path}: {}", seen.html);
        seen.html
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_logs_in_and_decides_what_can_be_done() {
    TestApp::run(Backend::Sqlite, async |mut app| {
        app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
        app.refund(10_000).await;
        app.db.execute("UPDATE claims SET status = 'held', status_reason = 'older than this ledger'").await;
        let mut pages = Pages::of(&app);
        let seen = pages.get("/ui/refunds?status=held").await;
        assert_eq!((seen.status, seen.location.as_str()), (303, "/ui/login?next=%2Fui%2Frefunds%3Fstatus%3Dheld"));
        let seen = pages.post("/ui/act/accept", &[("id", "re_1"), ("reason", "x")]).await;
        assert_eq!((seen.status, seen.location.as_str()), (303, "/ui/login"));

        let seen = pages.log_in("not-the-token", "ada").await;
        assert_eq!((seen.status, &seen.cookie), (401, &None));
        assert!(seen.html.contains("Not logged in") && !seen.html.contains("not-the-token"), "{}", seen.html);
        let seen = pages.post("/ui/login", &[("token", &app.api_token), ("operator", " ")]).await;
        assert_eq!(seen.status, 422);
        assert!(seen.html.contains("operator must be one line of 1 to 100 characters (got nothing)"), "{}", seen.html);
        for elsewhere in ["//evil.example", "https://evil.example", "/ui/\\evil", "/v1/refunds"] {
            let form = [("token", app.api_token.as_str()), ("operator", "ada"), ("next", elsewhere)];
            assert_eq!(pages.post("/ui/login", &form).await.location, "/ui/", "{elsewhere}");
        }

        pages.log_in(&app.read_token, "grace").await;
        let page = pages.page("/ui/refunds?status=held").await;
        assert!(page.contains("re_1") && page.contains("grace (read only)"), "{page}");
        assert!(!page.contains("class=\"button\""), "{page}");
        for seen in [
            pages.get("/ui/act/accept?id=re_1").await,
            pages.post("/ui/act/accept", &[("id", "re_1"), ("reason", "x")]).await,
            pages.post("/ui/operations", &[("action", "replay_reversals"), ("seller", "s1")]).await,
            pages.post("/ui/operations/x/start", &[("reason", "x")]).await,
            pages.post("/ui/operations/x/abort", &[("reason", "x")]).await,
            pages.post("/ui/parked/message", &[("id", "x"), ("reason", "x")]).await,
            pages.get("/ui/groups/note?kind=reversal&key=x").await,
            pages.post("/ui/groups/note", &[("kind", "reversal"), ("key", "x"), ("text", "x")]).await,
            pages.post("/ui/pauses", &[("reason", "x")]).await,
            pages.post("/ui/pauses/x/resume", &[("reason", "x")]).await,
            pages.post("/ui/breaker/probe", &[("reason", "x")]).await,
        ] {
            assert_eq!(seen.status, 403, "{}", seen.html);
            assert!(seen.html.contains("log in with API_TOKEN"), "{}", seen.html);
        }
        assert_eq!(app.refund_view("re_1").await["status"], "held");

        pages.log_in(&app.api_token, "ada").await;
        assert!(pages.page("/ui/refunds?status=held").await.contains("href=\"/ui/act/accept?id="));
        let cookie = pages.cookie.clone().unwrap();
        let (start, signature) = cookie.rsplit_once('.').unwrap();
        for forged in [format!("{start}.{}", "0".repeat(64)), cookie.replace("616461", "626f62"), start.to_owned()] {
            assert_ne!(forged, cookie, "{signature}");
            pages.cookie = Some(forged);
            assert_eq!(pages.get("/ui/").await.location, "/ui/login");
        }
        pages.cookie = Some(cookie.clone());
        let out = pages.post("/ui/logout", &[]).await;
        assert_eq!((out.location.as_str(), out.cookie.as_deref()), ("/ui/login", Some("clawback=")));

        app.restart_with(&[("API_TOKEN", "another-token-of-the-tests")]).await;
        let pages = Pages { cookie: Some(cookie.clone()), ..Pages::of(&app) };
        assert_eq!(pages.get("/ui/").await.location, "/ui/login", "a token that is gone has no sessions");
        app.restart_with(&[("API_TOKEN", ""), ("API_READ_TOKEN", "")]).await;
        let pages = Pages { cookie: Some(cookie), ..Pages::of(&app) };
        for path in ["/ui/", "/ui/login", "/ui/refunds"] {
            let seen = pages.get(path).await;
            assert_eq!(seen.status, 404);
            assert!(seen.html.contains("no token is set"), "{}", seen.html);
        }
        app.restart_with(&[("UI_ENABLED", "false")]).await;
        assert_eq!(Pages::of(&app).get("/ui/").await.status, 404);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_link_of_an_error_leads_to_a_page() {
    TestApp::run(Backend::Sqlite, async |app| {
        let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
        let id = "0199e2c4-0000-7000-8000-000000000000";
        let mut seen = Vec::new();
        for path in [
            "/ui/login",
            "/ui/act/replay",
            "/ui/operations",
            &format!("/ui/operations/{id}/start"),
            &format!("/ui/operations/{id}/abort"),
            "/ui/pauses",
            &format!("/ui/pauses/{id}/resume"),
            "/ui/breaker/probe",
            "/ui/groups/note",
            "/ui/parked/message",
        ] {
            seen.push((path.to_owned(), pages.post(path, &[("nonsense", "x")]).await));
        }
        for path in ["/ui/reversals?nonsense=x", "/ui/act/accept?nonsense=x", "/ui/parked/message?nonsense=x"] {
            seen.push((path.to_owned(), pages.get(path).await));
        }
        let mut links = BTreeSet::new();
        for (path, seen) in &seen {
            assert!([404, 422].contains(&seen.status), "{path}: {}", seen.status);
            let of_page = seen.html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
            links.extend(of_page.map(|link| link.replace("&amp;", "&")));
        }
        assert!(seen.iter().filter(|(_, seen)| seen.status == 422).count() > 8, "{seen:?}");
        for link in links.iter().filter(|link| link.starts_with('/')) {
            assert_eq!(pages.get(link).await.status, 200, "{link}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_acts_under_the_name_of_a_program() {
    TestApp::run(Backend::Sqlite, async |app| {
        let seen = Pages::of(&app).log_in(&app.api_token, "Worker").await;
        assert!(seen.status == 422 && seen.html.contains("operator must be a person"), "{seen:?}");
        let url = format!("{}/v1/reversals/trr_1/close", app.base_url);
        let body = json!({"operator": "stripe", "reason": "x"});
        let answer = app.http.post(url).bearer_auth(&app.api_token).json(&body).send().await.unwrap();
        let (status, problem) = (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap());
        assert_eq!((status, &problem["field"]), (422, &json!("operator")), "{problem}");
        let run = app.cli(&["reversals", "close", "trr_1", "--reason", "x", "--operator", "sweeper"]).await;
        assert!(run.code == 2 && run.stderr.contains("must be a person's name"), "{run:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_another_site_is_refused_and_files_are_kept() {
    TestApp::run(Backend::Sqlite, async |app| {
        let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
        let (own, port) = (pages.url.clone(), pages.url.rsplit_once(':').unwrap().1.to_owned());
        for (header, value, allowed) in [
            ("origin", "https://evil.example".to_owned(), false),
            ("origin", "null".to_owned(), false),
            ("origin", format!("http://localhost:{port}"), false),
            ("sec-fetch-site", "cross-site".to_owned(), false),
            ("sec-fetch-site", "same-site".to_owned(), false),
            ("origin", own, true),
            ("sec-fetch-site", "same-origin".to_owned(), true),
        ] {
            for path in ["/ui/logout", "/ui/login", "/ui/act/accept", "/ui/operations"] {
                let request = pages.http.post(format!("{}{path}", pages.url)).header(header, &value);
                let seen = pages.send(request.form(&[("reason", "x")])).await;
                assert_eq!(seen.status == 403, !allowed, "{path} {header}: {value}: {}", seen.html);
                assert_eq!(seen.cookie.is_some(), allowed && path == "/ui/logout", "{path}");
            }
        }
        let seen = pages.get("/ui/login").await;
        let css = seen.html.split('"').find(|text| text.starts_with("/ui/style.css?v=")).unwrap().to_owned();
        let file = pages.http.get(format!("{}{css}", pages.url)).send().await.unwrap();
        assert_eq!((file.status().as_u16(), &file.headers()["content-type"]), (200, &"text/css; charset=utf-8".parse().unwrap()));
        assert_eq!(file.headers()["cache-control"], "public, max-age=31536000, immutable");
        let again = pages.http.get(format!("{}{css}", pages.url)).header("if-none-match", &file.headers()["etag"]);
        assert_eq!(again.send().await.unwrap().status(), 304);
        let page = pages.http.get(format!("{}/ui/login", pages.url)).send().await.unwrap();
        assert_eq!((&page.headers()["cache-control"], &page.headers()["referrer-policy"]), (&"no-store".parse().unwrap(), &"same-origin".parse().unwrap()));
        assert_eq!(pages.get("/ui").await.location, "/ui/");
        for path in ["/ui/nothing", "/ui/act/steal", "/ui/trace?id=re_9", "/ui/sellers?id=nobody", "/ui/act/replay?id=x", "/ui/operations/x", "/ui/operations/00000000-0000-7000-8000-000000000000"] {
            let seen = pages.get(path).await;
            assert_eq!(seen.status, 404, "{path}");
            assert!(seen.html.contains("<nav class=\"main\""), "{}", seen.html);
        }
        for (path, words) in [
            ("/ui/refunds?status=lost", "status must be one of unmatched, held, matched, conflicting, nothing_to_reverse, failed (got &quot;lost&quot;)"),
            ("/ui/reversals?currency=euro", "currency must be a three-letter ISO 4217 code (got &quot;euro&quot;)"),
            ("/ui/transfers?cursor=1", "cursor must be the next_cursor of the previous page (got &quot;1&quot;)"),
            ("/ui/disputes?state=held", "unknown field &quot;state&quot;; known: status, currency, attention, acknowledged, since, until, order, cursor, format"),
            ("/ui/audit?actor=a&actor=b", "actor is given twice"),
            ("/ui/audit?entity=seller", "entity must be one of payment, transfer, refund, dispute, reversal, lookup, event, operation, pause, process (got &quot;seller&quot;)"),
            ("/ui/audit?since=soon", "since must be a time like 2026-11-01T09:30:00Z"),
            ("/ui/sellers?debt=much", "debt must be one of open, waiting_for_balance, failed (got &quot;much&quot;)"),
        ] {
            let seen = pages.get(path).await;
            assert_eq!(seen.status, 422, "{path}: {}", seen.html);
            assert!(seen.html.contains(words), "{path}: {}", seen.html);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_pages_say_unknown_and_not_nothing() {
    TestApp::run(Backend::Sqlite, async |mut app| {
        app.restart_with(&[("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")]).await;
        let pages = Pages::logged_in(&app, &app.read_token, "ada").await;
        for path in ["/ui/queues", "/ui/parked"] {
            let page = pages.page(path).await;
            assert!(page.contains("Unknown: the broker could not be asked"), "{page}");
            assert!(page.contains("No connection to the broker."), "{page}");
        }
        let (status, problem) = app.read("/v1/queues").await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 503 && detail.contains("jobs that wait in the outbox: 0"), "{problem}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_looked_at_outside_the_ledger_is_looked_at_once_for_all_and_says_when() {
    TestApp::run(Backend::Sqlite, async |mut app| {
        let pages = Pages::logged_in(&app, &app.read_token, "ada").await;
        for path in ["/ui/queues", "/ui/doctor"] {
            let as_of = async || {
                let page = pages.page(path).await;
                let (_, rest) = page.split_once("as of <time datetime=\"").unwrap_or_else(|| panic!("{path}: {page}"));
                rest.split('"').next().unwrap().to_owned()
            };
            let first = as_of().await;
            let start = std::time::Instant::now();
            for _ in 0..5 {
                assert_eq!(as_of().await, first, "{path}");
            }
            assert!(start.elapsed() < std::time::Duration::from_millis(1_500), "{path}: {:?}", start.elapsed());
        }
        let (status, doctor) = app.read("/v1/doctor").await;
        assert!(status == 200 && doctor["as_of"].is_string(), "{doctor}");
        let checks: Vec<&str> =
            doctor["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
        for expected in ["configuration", "database", "broker", "Stripe", "outbox"] {
            assert!(checks.contains(&expected), "{expected}: {doctor}");
        }
        let work_queue = async |app: &TestApp| {
            let (status, queues) = app.read("/v1/queues").await;
            assert!(status == 200 && queues["as_of"].is_string(), "{queues}");
            assert_eq!(queues["outbox"]["unpublished"], 0);
            let all = queues["queues"].as_array().unwrap();
            all.iter().find(|queue| queue["name"] == "reversals").unwrap().clone()
        };
        let queue = work_queue(&app).await;
        assert_eq!((&queue["messages"], &queue["unacknowledged"]), (&json!(0), &json!(null)), "AMQP does not tell");
        app.restart_with(&[("RABBITMQ_MANAGEMENT_URL", &crate::support::required("RABBITMQ_MANAGEMENT_URL"))]).await;
        // The management API tells it some seconds late.
        eventually("what workers hold is known", || async {
            (work_queue(&app).await["unacknowledged"] == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_says_that_stripe_cannot_be_used() {
    TestApp::run(Backend::Sqlite, async |app| {
        app.sim.allow_keys(["sk_test_another"]);
        app.refund(10_000).await;
        let pages = Pages::logged_in(&app, &app.read_token, "ada").await;
        eventually("the breaker is open", || async {
            pages.page("/ui/").await.contains("<strong>Stripe can't be used</strong>").then_some(())
        })
        .await;
        let overview = pages.page("/ui/").await;
        let others = links(&overview).filter(|link| link.starts_with("/ui/") && !link.contains(['?', '.', '#']));
        let others: BTreeSet<String> = others.filter(|link| link != "/ui/logout").collect();
        assert!(others.len() > 12, "{others:?}");
        for path in others {
            let page = pages.page(&path).await;
            assert!(page.contains("<strong>Stripe can't be used</strong>") && page.contains("Probe it now"), "{path}");
        }
        let queues = pages.page("/ui/queues").await;
        assert!(queues.contains("<span class=\"status bad\">open</span>"), "{queues}");
    })
    .await;
}

/// Four debts that failed for two causes with one code, two that failed and are not owed, two transfers that could not be created,
/// and of two held refunds one that is acknowledged.
async fn some_that_count_and_some_that_do_not(app: &mut TestApp) {
    let settings = [("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false"), ("CONFIRM_FROM", "100")];
    app.restart_with(&settings).await;
    app.many_sellers("pi_1", 4).await;
    app.refund_of(400, 1).await;
    assert_eq!(app.register(two_sellers("pi_2")).await.status(), 201);
    app.post_webhook(&refund_event("evt_2", "re_2", "pi_2", 10_000).to_string()).await;
    assert_eq!(app.register(to_create("pi_c")).await.status(), 201);
    for n in [8, 9] {
        app.post_webhook(&refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_9", 100).to_string()).await;
    }
    for sql in [
        "UPDATE reversals SET status = 'permanently_failed'",
        "UPDATE seller_transfers SET status = 'permanently_failed'",
        "UPDATE calls SET state = 'failed', failure_code = 'unavailable', failure_message = 'Stripe answered 503'",
        "UPDATE calls SET failure_message = 'no answer' WHERE id = (SELECT id FROM reversals ORDER BY id LIMIT 1)",
        "UPDATE claims SET status = 'failed' WHERE reference = 're_2'",
        "UPDATE claims SET status = 'held', attention = 'look at it' WHERE payment_ref = 'pi_9'",
    ] {
        app.db.execute(sql).await;
    }
    app.ledger().acknowledge_claim("re_9", Note::new("bob", "a test shop")).await.unwrap();
}

async fn each_figure_leads_to_exactly_the_rows_that_it_counts(mut app: TestApp) {
    some_that_count_and_some_that_do_not(&mut app).await;
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    let overview = pages.page("/ui/").await;
    for (path, rows) in [
        ("/ui/reversals?status=permanently_failed&owed=yes&currency=eur", 4),
        ("/ui/transfers?not_created=yes&currency=eur", 2),
        ("/ui/refunds?status=held&acknowledged=no&currency=eur", 1),
    ] {
        assert!(links(&overview).any(|link| link == path), "{path}: {overview}");
        let list = pages.page(path).await;
        assert!(list.contains(&format!("{rows} row")) && list.matches("<tr>").count() == rows + 1, "{path}: {list}");
    }
    assert!(pages.page("/ui/reversals?status=permanently_failed").await.contains("6 rows"));
    assert!(pages.page("/ui/transfers?status=permanently_failed").await.contains("8 rows"));
    let parked = pages.page("/ui/parked").await;
    let mut rows = Vec::new();
    for group in links(&parked).filter(|link| link.contains("group=")) {
        let list = pages.page(&group).await;
        rows.push(list.matches("<tr>").count() - 1);
        assert!(list.contains(": all that match\"") && list.contains("name=\"group\" value=\""), "{list}");
    }
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3], "{parked}");
    assert!(overview.contains("href=\"/ui/sellers?debt=open\"") && overview.contains("Last reversal"), "{overview}");

    // The same at the other doors.
    let count = async |arguments: &str, list: &str| {
        let arguments: Vec<&str> = arguments.split(' ').chain(["--format", "json"]).collect();
        app.cli(&arguments).await.json()[list].as_array().unwrap().len()
    };
    assert_eq!(count("reversals list --owed", "reversals").await, 4);
    assert_eq!(count("transfers list --not-created", "transfers").await, 2);
    assert_eq!(count("refunds list --status held --acknowledged yes", "refunds").await, 1);
    for (path, rows) in [
        ("/v1/reversals?owed=yes&format=ndjson", 4),
        ("/v1/transfers?not_created=yes&format=ndjson", 2),
        ("/v1/refunds?acknowledged=no&status=held&format=ndjson", 1),
    ] {
        let request = app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token);
        assert_eq!(request.send().await.unwrap().text().await.unwrap().lines().count(), rows, "{path}");
    }
    // All that match, on a list without any condition but its status.
    let list = pages.page("/ui/reversals?status=permanently_failed").await;
    let form = hidden_fields(&list);
    let form: Vec<_> = form.iter().take(2).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form, [("action", "replay_reversals"), ("since", "1970-01-01")]);
    let operation = pages.post("/ui/operations", &form).await.location;
    assert!(pages.page(&operation).await.contains("4 rows: 4.00 EUR"));
    let by_time = pages.page("/ui/reversals?status=permanently_failed&since=1h").await;
    assert!(!by_time.contains(": all that match\""), "an operation counts from the failure, the list from the debt");
}

async fn all_that_a_list_of_claims_shows_is_decided_at_once(mut app: TestApp) {
    some_that_count_and_some_that_do_not(&mut app).await;
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    let held = pages.page("/ui/held").await;
    assert!(held.contains("re_8") && !held.contains("re_9"), "what is acknowledged is not to be accepted: {held}");
    let all = pages.page("/ui/refunds?status=held").await;
    assert!(all.contains("acknowledged by bob: a test shop"), "{all}");
    let list = pages.page("/ui/refunds?status=held&acknowledged=no&since=1h").await;
    let form = hidden_fields(&list);
    let form: Vec<_> = form.iter().take(4).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let names: Vec<&str> = form.iter().map(|(name, _)| *name).collect();
    assert_eq!((names, form[0].1), (vec!["action", "status", "since", "kind"], "accept_claims"));
    let operation = pages.post("/ui/operations", &form).await.location;
    let preview = pages.page(&operation).await;
    assert!(preview.contains("1 row: 1.00 EUR") && preview.contains("Type <strong>100 eur</strong>"), "{preview}");
    let start = format!("{operation}/start");
    assert_eq!(pages.post(&start, &[("reason", "they are owed")]).await.status, 422, "accepting moves money");

    let attention = pages.page("/ui/attention").await;
    let form = hidden_fields(&attention);
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form, [("action", "acknowledge_claims"), ("attention", "yes"), ("kind", "refund")]);
    let operation = pages.post("/ui/operations", &form).await.location;
    assert_eq!(pages.post(&format!("{operation}/start"), &[("reason", "seen")]).await.status, 303);
    eventually("it is done", || async {
        pages.page(&operation).await.contains("1 done, 0 refused, 0 left").then_some(())
    })
    .await;
    assert!(pages.page("/ui/attention").await.contains("None."));
}

async fn many_groups_and_many_sellers_make_no_large_page(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.many_sellers("pi_1", 120).await;
    app.refund_of(12_000, 1).await;
    app.db.execute("UPDATE reversals SET status = 'permanently_failed'").await;
    app.db
        .execute("UPDATE calls SET state = 'failed', failure_message = 'It said no, and gave no other reason.'")
        .await;
    for n in 0..40 {
        let row = format!("(SELECT id FROM reversals ORDER BY id LIMIT 1 OFFSET {n})");
        app.db.execute(&format!("UPDATE calls SET failure_code = 'some_code_{n}' WHERE id = {row}")).await;
    }
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    for path in ["/ui/", "/ui/parked", "/ui/operations"] {
        let page = pages.page(path).await;
        check(path, &page);
        assert!(page.contains("The largest 15; 26 more groups"), "{path}: {page}");
    }
    for id in ["re_1", "pi_1"] {
        let path = format!("/ui/trace?id={id}");
        let story = pages.page(&path).await;
        check(&path, &story);
        assert_eq!(story.matches("100 more are in the text").count(), 2, "{story}");
        assert!(story.contains(&format!("href=\"/ui/audit?id={id}\"")), "{story}");
    }
}

async fn every_link_leads_to_a_page_and_text_from_outside_is_text(mut app: TestApp) {
    app.restart_with(&[("DISPUTE_POLICY", "lost"), ("REFUNDS_SINCE", "2024-01-01")]).await;
    play(&app, 48).await;
    sample::play_rarities(&to(&app), &app.sim).await.unwrap();
    eventually("the operation is done", || async {
        (app.db.count("operations WHERE state = 'done'").await == 1).then_some(())
    })
    .await;
    let pages = Pages::logged_in(&app, &app.api_token, "<i>ada</i>").await;
    let (mut seen, mut left) = (BTreeSet::new(), VecDeque::from(["/ui/".to_owned()]));
    let mut shown = String::new();
    while let Some(path) = left.pop_front() {
        let page = pages.page(&path).await;
        check(&path, &page);
        shown += &page;
        for link in links(&page).filter(|link| link.starts_with("/ui/") && !link.contains("?v=")) {
            // Files, not pages.
            if link.contains("format=") {
                continue;
            }
            // Of the many stories, some.
            let is_story = link.starts_with("/ui/trace?") && seen.len() > 120;
            if !is_story && seen.insert(link.clone()) {
                left.push_back(link);
            }
        }
    }
    for text in [
        "&lt;b&gt;Bobby&amp;Söhne&lt;/b&gt;",
        "&lt;i&gt;ada&lt;/i&gt;",
        "&lt;acct_closed&gt;",
        " JPY",
        "seller not paid",
        "the seller objects, ticket 4711",
        "paid by invoice 4711",
    ] {
        assert!(shown.contains(text), "{text} is on no page");
    }
    for status in [
        "permanently failed",
        "reversed",
        "held",
        "conflicting",
        "unmatched",
        "partially reversed",
        "lost",
        "completed",
        "closed",
        "called off",
        "nothing to reverse",
        "failed",
        "done",
    ] {
        assert!(shown.contains(&format!("\">{status}</span>")), "{status} is on no page");
    }
    assert!(seen.len() > 60, "{seen:?}");
}

/// The rules of every page.
fn check(path: &str, page: &str) {
    assert!(page.len() < MAX_BYTES, "{path} has {} bytes", page.len());
    for forbidden in ["<b>Bobby", "<i>ada", "<acct_closed>", "<script>", " style=", " onclick", "<style"] {
        assert!(!page.contains(forbidden), "{path}: {forbidden}");
    }
    assert_eq!(
        (page.matches("<script").count(), page.matches("<script src=\"/ui/refresh.js?v=").count()),
        (1, 1),
        "{path}"
    );
    assert_eq!(page.matches("<h1>").count(), 1, "{path}");
    assert!(page.contains("<a class=\"skip\" href=\"#main\">") && page.contains("<main id=\"main\""), "{path}");
    for head in page.split("<th").skip(1).filter(|head| !head.starts_with("ead")) {
        assert!(head.split('>').next().unwrap().contains("scope="), "{path}: a heading without its scope");
    }
    for control in ["<input", "<select"] {
        for (at, _) in page.match_indices(control) {
            let is_hidden = page[at..].split('>').next().unwrap().contains("type=\"hidden\"");
            let before = &page[..at];
            let is_labelled =
                before.rfind("<label").is_some_and(|label| before.rfind("</label").is_none_or(|end| end < label));
            assert!(is_hidden || is_labelled, "{path}: {}", &page[at..][..80]);
        }
    }
}

fn links(page: &str) -> impl Iterator<Item = String> {
    page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"))
}

/// Plays the sample, and waits until all has ended that ends by itself.
pub(crate) async fn play(app: &TestApp, payments: usize) {
    sample::play(&to(app), &app.sim, payments).await.unwrap();
    eventually("all has ended that ends by itself", || async {
        let waits = "calls WHERE state = 'open' AND failure_code IS DISTINCT FROM 'balance_insufficient'";
        (app.db.count(waits).await == 0).then_some(())
    })
    .await;
}

fn to(app: &TestApp) -> sample::Clawback<'_> {
    let TestApp { http, base_url: url, api_token: token, webhook_secret, .. } = app;
    sample::Clawback { http, url, token, webhook_secret }
}

async fn a_group_is_replayed_as_it_was_previewed_and_the_history_says_by_whom_and_why(app: TestApp) {
    for n in 1..=2 {
        fails_permanently(&app, n, n).await;
    }
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    let parked = pages.page("/ui/parked").await;
    for text in [
        "2 reversals: 120.00 EUR",
        "resource_missing",
        "No such transfer: '…'",
        "aria-label=\"Replay: resource_missing\"",
    ] {
        assert!(parked.contains(text), "{text}: {parked}");
    }
    let overview = pages.page("/ui/").await;
    let failed = "<a href=\"/ui/reversals?status=permanently_failed&amp;owed=yes&amp;currency=eur\"><data class=\"money\" value=\"12000\">120.00 EUR</data> \
        <small>(2)</small></a>";
    assert!(overview.contains(failed), "{overview}");
    let preview = hidden_fields(&parked);
    let preview: Vec<_> = preview.iter().take(2).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(preview[0], ("action", "replay_reversals"));
    let seen = pages.post("/ui/operations", &preview).await;
    assert_eq!(seen.status, 303, "{}", seen.html);
    let operation = seen.location;
    // What fails after the preview is not of it.
    fails_permanently(&app, 3, 3).await;
    let shown = pages.page(&operation).await;
    check(&operation, &shown);
    for text in ["2 rows: 120.00 EUR", "\">previewed</span>", "0 done, 0 refused, 2 left", "Replay 2 rows"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let start = format!("{operation}/start");
    for (form, words) in [
        (&[("reason", "")][..], "reason must be one line of 1 to 500 characters (got nothing)"),
        (&[("reason", "x"), ("cap", "0")], "cap must be a positive integer (got &quot;0&quot;)"),
        (&[("reason", "x"), ("spread_seconds", "9999999")], "spread_seconds must be from 0 to 604800"),
    ] {
        let seen = pages.post(&start, form).await;
        assert_eq!((seen.status, seen.html.contains(words)), (422, true), "{}", seen.html);
    }
    let seen = pages.post("/ui/operations", &[("action", "replay_reversals")]).await;
    assert_eq!((seen.status, seen.html.contains("filter must have at least one of")), (422, true), "{}", seen.html);
    assert_eq!(app.db.count("history WHERE actor = 'ada'").await, 0);

    for n in 1..=3 {
        app.sim.add_transfer(&format!("tr_x{n}"), 6_000, "eur", "acct_1");
    }
    let reader = Pages::logged_in(&app, &app.read_token, "grace").await;
    assert!(!reader.page(&operation).await.contains("/start"), "those who only look see no form");
    let form = [("reason", "they exist by now")];
    let seen = pages.post(&start, &form).await;
    assert_eq!((seen.status, &seen.location), (303, &operation), "{}", seen.html);
    eventually("the operation is done", || async {
        pages.page(&operation).await.contains("2 done, 0 refused, 0 left").then_some(())
    })
    .await;
    app.until_none_is_open().await;
    let reversed = [1, 2, 3].map(|n| app.reversed_at_stripe(&format!("tr_x{n}")));
    assert_eq!(reversed, [6_000, 6_000, 0], "exactly what was previewed");
    let audit = pages.page("/ui/audit?actor=ada&entity=reversal&since=1h").await;
    assert_eq!(audit.matches("they exist by now").count(), 2, "{audit}");
    let seen = pages.post(&start, &form).await;
    assert_eq!(seen.status, 409, "a second time changes nothing");
    assert_eq!(pages.post(&format!("{operation}/abort"), &form).await.status, 409);
    let listed = pages.page("/ui/operations").await;
    assert!(listed.contains(&operation) && listed.contains("ada: they exist by now"), "{listed}");

    // The rest, by its seller, and slowly enough to be aborted.
    let seller = pages.page("/ui/sellers?id=s1").await;
    for text in ["data class=\"money\" value=\"18000\">180.00 EUR", "data class=\"money\" value=\"12000\">120.00 EUR"] {
        assert!(seller.contains(text), "{text}: {seller}");
    }
    let form = hidden_fields(&seller);
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form, [("action", "replay_reversals"), ("seller", "s1")]);
    // The first row is due at once, so there must be another one.
    register(&app, "pi_x4", &["tr_x4"], 6_000).await;
    app.post_webhook(&refund_event("evt_x4", "re_x4", "pi_x4", 6_000).to_string()).await;
    eventually("two have failed", || async {
        (app.db.count("reversals WHERE status = 'permanently_failed'").await == 2).then_some(())
    })
    .await;
    let operation = pages.post("/ui/operations", &form).await.location;
    let form = [("reason", "slowly"), ("spread_seconds", "3600"), ("cap", "2")];
    assert_eq!(pages.post(&format!("{operation}/start"), &form).await.status, 303);
    let form = [("reason", "after all not")];
    assert_eq!(pages.post(&format!("{operation}/abort"), &form).await.location, operation);
    let shown = pages.page(&operation).await;
    assert!(shown.contains("\">aborted</span>") && shown.contains("3600 s"), "{shown}");
    let audit = pages.page("/ui/audit?entity=operation").await;
    assert!(audit.contains("after all not") && audit.contains("slowly"), "{audit}");
}

async fn claims_and_debts_are_decided_on_pages_as_over_the_api(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    // A conflict is acknowledged.
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let mut event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    event["data"]["object"]["currency"] = json!("usd");
    app.post_webhook(&event.to_string()).await;
    let page = pages.page("/ui/refunds?attention=yes").await;
    let ask = links(&page).find(|link| link.starts_with("/ui/act/acknowledge")).unwrap();
    assert!(pages.page(&ask).await.contains("No money moves."));
    let seen = pages.post("/ui/act/acknowledge", &[("id", "re_1"), ("reason", "settled at Stripe")]).await;
    assert_eq!(seen.status, 200, "{}", seen.html);
    assert!(pages.page("/ui/refunds?attention=yes").await.contains("Nothing matches."));
    assert!(pages.page("/ui/attention").await.contains("None."));
    let seen = pages.post("/ui/act/acknowledge", &[("id", "re_1"), ("reason", "again")]).await;
    assert_eq!((seen.status, seen.html.contains("needs no attention")), (409, true), "{}", seen.html);
    // A held refund is accepted.
    app.db
        .execute(
            "UPDATE claims SET status = 'held', status_reason = 'older', matched_at = NULL WHERE reference = 're_1'",
        )
        .await;
    app.db.execute("UPDATE claims SET currency = 'eur', acknowledged_at = NULL WHERE reference = 're_1'").await;
    let held = pages.page("/ui/held").await;
    assert!(held.contains("Accept: all that match"), "{held}");
    let ask = links(&held).find(|link| link.starts_with("/ui/act/accept")).unwrap();
    assert!(pages.page(&ask).await.contains("It takes back from its payment"), "{held}");
    let seen = pages.post("/ui/act/accept", &[("id", "re_1"), ("reason", "not taken back yet")]).await;
    assert_eq!(seen.status, 200, "{}", seen.html);
    app.transfer_becomes(0, "reversed").await;
    // One debt is taken in part, another is closed.
    app.sim.add_transfer("tr_x2", 6_000, "eur", "acct_1");
    app.sim.reverse_from_elsewhere("tr_x2", Some(3_500));
    fails_permanently(&app, 2, 1).await;
    fails_permanently(&app, 3, 2).await;
    let failed = pages.page("/ui/reversals?status=permanently_failed&currency=EUR&failure_code=resource_missing").await;
    let close = links(&failed).find(|link| link.starts_with("/ui/act/close")).unwrap();
    let asked = pages.page(&close).await;
    let id = hidden_fields(&asked)[0].1.clone();
    let seen = pages.post("/ui/act/close", &[("id", &id), ("reason", "invoice 4711")]).await;
    assert!(
        seen.html.contains("\">closed</span>") && seen.html.contains("Parked messages taken away: 1."),
        "{}",
        seen.html
    );
    let failed = pages.page("/ui/reversals?status=permanently_failed").await;
    let replay = links(&failed).find(|link| link.starts_with("/ui/act/replay")).unwrap();
    let id = hidden_fields(&pages.page(&replay).await)[0].1.clone();
    let seen = pages.post("/ui/act/replay", &[("id", &id), ("amount", "0"), ("reason", "x")]).await;
    assert_eq!(seen.status, 422);
    assert!(
        seen.html.contains("amount must be a positive integer in minor units (got &quot;0&quot;)"),
        "{}",
        seen.html
    );
    let seen = pages.post("/ui/act/replay", &[("id", &id), ("amount", "2500"), ("reason", "the rest was paid")]).await;
    assert_eq!(seen.status, 200, "{}", seen.html);
    app.until_none_is_open().await;
    assert_eq!(app.reversed_at_stripe("tr_x2"), 6_000);
    let seen = pages.post("/ui/act/replay", &[("id", &id), ("reason", "again")]).await;
    assert_eq!(seen.status, 409, "{}", seen.html);
    let story = pages.page("/ui/trace?id=re_x2").await;
    assert!(
        story.contains("the rest was paid") && story.contains("35.00 EUR</data> were settled elsewhere"),
        "{story}"
    );
    // A parked message is discarded; its row can still be replayed.
    fails_permanently(&app, 4, 1).await;
    let parked = pages.page("/ui/parked").await;
    let discard = links(&parked).find(|link| link.contains("action=discard")).unwrap();
    let form = hidden_fields(&pages.page(&discard).await);
    let form: Vec<_> =
        form.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain([("reason", "seen")]).collect();
    let seen = pages.post("/ui/parked/message", &form).await;
    assert!(seen.html.contains("Discarded."), "{}", seen.html);
    assert_eq!(pages.post("/ui/parked/message", &form).await.status, 404);
    for reason in ["settled at Stripe", "not taken back yet", "invoice 4711", "the rest was paid"] {
        assert!(
            app.db.count(&format!("history WHERE actor = 'ada' AND reason LIKE '%{reason}%'")).await > 0,
            "{reason}"
        );
    }
}

async fn lists_go_on_page_by_page_and_filter(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    app.many_sellers("pi_1", 120).await;
    app.refund_of(12_000, 1).await;
    assert_eq!(app.register(to_create("pi_c")).await.status(), 201);
    let pages = Pages::logged_in(&app, &app.read_token, "ada").await;
    let mut next = Some("/ui/reversals?status=pending&currency=eur".to_owned());
    let mut rows = 0;
    while let Some(path) = next {
        let page = pages.page(&path).await;
        check(&path, &page);
        rows += page.matches("<tr>").count() - 1;
        next = next_page(&page);
    }
    assert_eq!(rows, 120);
    let one = pages.page("/ui/reversals?seller=s7").await;
    assert_eq!(one.matches("<tr>").count(), 2, "{one}");
    for text in ["re_1", "pi_1", "tr_of_7", "data class=\"money\" value=\"100\">1.00 EUR"] {
        assert!(one.contains(text), "{text}: {one}");
    }
    assert!(pages.page("/ui/reversals?currency=usd").await.contains("Nothing matches."));
    assert!(pages.page("/ui/reversals?status=pending&waits=yes").await.contains("Nothing matches."));
    let mut next = Some("/ui/sellers?debt=open".to_owned());
    let mut rows = 0;
    while let Some(path) = next {
        let page = pages.page(&path).await;
        check(&path, &page);
        rows += page.matches("<tr>").count() - 1;
        next = next_page(&page);
    }
    assert_eq!(rows, 120);
    let of_s7 =
        "id IN (SELECT r.id FROM reversals r JOIN seller_transfers t ON t.id = r.transfer_id WHERE t.seller_id = 's7')";
    app.db.execute(&format!("UPDATE calls SET refused_since = '2026-11-01T00:00:00+00:00' WHERE {of_s7}")).await;
    let overview = pages.page("/ui/").await;
    check("/ui/", &overview);
    for (amount, waits, number) in [(100, "yes", 1), (11_900, "no", 119)] {
        let all = format!("/ui/reversals?status=pending&amp;waits={waits}&amp;currency=eur");
        let sum = format!("<data class=\"money\" value=\"{amount}\">");
        let (of_all, of_hour) = (format!("{all}\">{sum}"), format!("{all}&amp;since="));
        assert!(overview.contains(&of_all) && overview.contains(&of_hour), "{all}: {overview}");
        for link in links(&overview).filter(|link| link.starts_with(&all.replace("&amp;", "&"))) {
            assert!(pages.page(&link).await.contains(&format!("{number} row")), "{link}");
        }
    }
    let older = pages.page("/ui/reversals?status=pending&until=1h").await;
    assert!(older.contains("0 rows") && older.contains("Nothing matches."), "{older}");
    let waits = pages.page("/ui/reversals?status=pending&waits=yes&currency=eur").await;
    assert_eq!((waits.matches("<tr>").count(), waits.contains("tr_of_7")), (2, true), "{waits}");
    assert!(pages.page("/ui/reversals?status=pending&waits=no&seller=s7").await.contains("Nothing matches."));
    let waits = pages.page("/ui/sellers?debt=waiting_for_balance").await;
    assert_eq!((waits.matches("<tr>").count(), waits.contains("/ui/sellers?id=s7")), (2, true), "{waits}");
    assert!(pages.page("/ui/sellers?debt=failed").await.contains("Nothing matches."));
    let created = pages.page("/ui/transfers?seller=s3").await;
    assert!(created.contains("(not created)") && created.contains("60.00 EUR"), "{created}");
}

async fn a_large_amount_is_typed_and_what_a_list_shows_can_be_kept(mut app: TestApp) {
    app.restart_with(&[("CONFIRM_FROM", "6000")]).await;
    fails_permanently(&app, 1, 1).await;
    app.sim.add_transfer("tr_x1", 6_000, "eur", "acct_1");
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    // A note on the group is seen at once, by all.
    let parked = pages.page("/ui/parked").await;
    let ask = links(&parked).find(|link| link.starts_with("/ui/groups/note")).unwrap();
    let form = hidden_fields(&pages.page(&ask).await);
    let key = form[1].1.clone();
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let noted = [&form[..], &[("text", "asked <Stripe>, ticket 4711")]].concat();
    assert_eq!(pages.post("/ui/groups/note", &noted).await.location, "/ui/parked");
    assert_eq!(pages.post("/ui/groups/note", &form).await.status, 422, "a note has a text");
    assert!(pages.page("/ui/parked").await.contains("asked &lt;Stripe&gt;, ticket 4711"));
    let by_cli = app.cli(&["reversals", "note", &key, "--text", "Stripe has answered", "--operator", "bob"]).await;
    assert_eq!(by_cli.code, 0, "{by_cli:?}");
    let groups = app.cli(&["reversals", "groups"]).await;
    assert!(groups.words().contains("note by bob") && groups.words().contains("note by ada"), "{groups:?}");
    let url = format!("{}/v1/reversals/groups/{key}/notes", app.base_url);
    let note =
        |text: &str| app.http.post(&url).bearer_auth(&app.api_token).json(&json!({"operator": "eve", "text": text}));
    assert_eq!(note("seen").send().await.unwrap().status(), 201);
    assert_eq!(note(" ").send().await.unwrap().status(), 422);
    let other = app.http.post(url.replace(&key, "000000000000")).bearer_auth(&app.api_token);
    assert_eq!(other.json(&json!({"operator": "eve", "text": "x"})).send().await.unwrap().status(), 404);

    // One debt, over every door.
    let failed = pages.page("/ui/reversals?status=permanently_failed").await;
    let replay = links(&failed).find(|link| link.starts_with("/ui/act/replay")).unwrap();
    let asked = pages.page(&replay).await;
    assert!(asked.contains("<strong>6000 eur</strong>"), "{asked}");
    let id = hidden_fields(&asked)[0].1.clone();
    let must = "confirm_amount must be &quot;6000 eur&quot;, typed";
    for typed in ["", "600 eur", "6000 usd"] {
        let seen = pages.post("/ui/act/replay", &[("id", &id), ("reason", "x"), ("confirm_amount", typed)]).await;
        assert!(seen.status == 422 && seen.html.contains(must), "{}", seen.html);
    }
    let url = format!("{}/v1/reversals/{id}/replay", app.base_url);
    let body = json!({"operator": "ada", "reason": "x", "confirm_amount": "1 eur"});
    let answer = app.http.post(&url).bearer_auth(&app.api_token).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 422);
    let run = app.cli(&["reversals", "replay", &id, "--reason", "x"]).await;
    assert!(run.code == 1 && run.stderr.contains("add --confirm-amount \"6000 eur\""), "{run:?}");
    assert_eq!(app.db.count("history WHERE to_status = 'pending' AND from_status = 'permanently_failed'").await, 0);

    // Many at once: the messages are thrown away and the debt stays, then it is replayed.
    let body = json!({"action": "discard_messages", "filter": {"group": key}});
    let discard = post(&app, "/v1/operations", &body).await;
    assert_eq!(discard["confirm"], json!(null), "{discard}");
    let path = format!("/v1/operations/{}", discard["id"].as_str().unwrap());
    post(&app, &format!("{path}/start"), &json!({"operator": "ada", "reason": "noise"})).await;
    let gone = "reversals.parked</th><td class=\"number\">0</td>";
    eventually("the message is gone", || async { pages.page("/ui/queues").await.contains(gone).then_some(()) }).await;
    eventually("it is done", || async {
        pages.page("/ui/operations").await.contains("1 done, 0 refused, 0 left").then_some(())
    })
    .await;
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 1, "it is still owed");
    let form = [("action", "replay_reversals"), ("group", key.as_str())];
    let operation = pages.post("/ui/operations", &form).await.location;
    let shown = pages.page(&operation).await;
    for text in ["Type <strong>6000 eur</strong>", "At Stripe then", "\">ready</span> 1: 60.00 EUR"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let start = format!("{operation}/start");
    let seen = pages.post(&start, &[("reason", "they exist by now")]).await;
    assert!(seen.status == 422 && seen.html.contains(must), "{}", seen.html);
    let id = operation.rsplit('/').next().unwrap();
    let run = app.cli(&["operations", "start", id, "--reason", "x", "--yes"]).await;
    assert!(run.code == 1 && run.stderr.contains("add --confirm-amount \"6000 eur\""), "{run:?}");
    let form = [("reason", "they exist by now"), ("confirm_amount", " 6000  EUR ")];
    assert_eq!(pages.post(&start, &form).await.status, 303);
    let done = "1 done, 0 refused, 0 left";
    eventually("it is replayed", || async { pages.page(&operation).await.contains(done).then_some(()) }).await;
    app.until_none_is_open().await;
    assert_eq!(app.reversed_at_stripe("tr_x1"), 6_000);

    // What is on the pages can be kept.
    for (path, head, row) in [
        (
            "/ui/reversals?status=reversed&format=csv",
            "id,status,amount,",
            ",reversed,6000,0,eur,s1,refund,re_x1,pi_x1,tr_x1,trr_",
        ),
        ("/ui/refunds?format=csv", "id,reference,source,", ",re_x1,stripe,pi_x1,matched,6000,eur,"),
        (
            "/ui/transfers?seller=s1&format=csv",
            "id,stripe_transfer_id,",
            ",tr_x1,reversed,6000,6000,eur,s1,acct_1,pi_x1,",
        ),
        ("/ui/sellers?format=csv", "seller_id,currency,transfers,", "\ns1,eur,1,6000,6000,0,0,0,0,0,\n"),
        (
            "/ui/audit?entity=reversal&kind=change&format=csv",
            "id,at,entity,entity_id,",
            ",permanently_failed,pending,ada,",
        ),
    ] {
        let seen = pages.get(path).await;
        assert_eq!(seen.status, 200, "{path}");
        assert!(seen.html.starts_with(head) && seen.html.contains(row), "{path}: {}", seen.html);
        let of_api = path.replace("/ui/", "/v1/").replace("audit", "history");
        let request = app.http.get(format!("{}{of_api}", app.base_url)).bearer_auth(&app.read_token);
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), seen.html, "{of_api}");
    }
    let list = pages.page("/ui/reversals?status=reversed").await;
    assert!(list.contains("1 row. <a href=\"/ui/reversals?status=reversed&amp;format=csv\" download"), "{list}");
    for filter in ["/ui/sellers?debt=open", "/ui/audit?actor=ada"] {
        let link = format!("<a href=\"{filter}&amp;format=csv\" download");
        assert!(pages.page(filter).await.contains(&link), "{filter}");
    }
    let story = pages.get("/ui/trace?id=re_x1&format=text").await.html;
    assert_eq!(story.split("Now, ").next(), app.cli(&["trace", "re_x1"]).await.stdout.split("Now, ").next());
    assert!(pages.page("/ui/trace?id=re_x1").await.contains("Nothing: everything here has come to its end."));
    let doctor = pages.page("/ui/doctor").await;
    assert!(doctor.contains("migrations") && doctor.contains("\">ok</span>"), "{doctor}");
    let overview = pages.page("/ui/").await;
    assert!(overview.contains("<svg") && overview.contains("EUR taken back, day by day"), "{overview}");
}

async fn post(app: &TestApp, path: &str, body: &serde_json::Value) -> serde_json::Value {
    let request = app.http.post(format!("{}{path}", app.base_url)).bearer_auth(&app.api_token).json(body);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {answer:?}");
    answer.json().await.unwrap()
}

/// Where the next page of a list is.
fn next_page(page: &str) -> Option<String> {
    let rest = page.split("<a rel=\"next\" href=\"").nth(1)?;
    Some(rest.split('"').next().unwrap().replace("&amp;", "&"))
}

/// The hidden fields of the form of a page.
fn hidden_fields(page: &str) -> Vec<(String, String)> {
    let value = |tag: &str, name: &str| {
        tag.split(&format!("{name}=\"")).nth(1).map(|rest| rest.split('"').next().unwrap().to_owned())
    };
    let tags = page.split("<input type=\"hidden\"").skip(1).map(|rest| rest.split('>').next().unwrap());
    tags.map(|tag| (value(tag, "name").unwrap(), value(tag, "value").unwrap())).collect()
}

/// A refund `re_xN` of 60.00 EUR whose transfer `tr_xN` is at Stripe only if the test has put it there: it fails permanently, as one
/// of so many that are parked.
async fn fails_permanently(app: &TestApp, n: i64, parked: i64) {
    let payment = json!({"payment_ref": format!("pi_x{n}"), "amount": 6_000, "currency": "eur", "transfers": [
        {"seller_id": "s1", "stripe_transfer_id": format!("tr_x{n}"), "destination": "acct_1", "amount": 6_000, "currency": "eur"},
    ]});
    assert_eq!(app.register(payment).await.status(), 201);
    let event = refund_event(&format!("evt_x{n}"), &format!("re_x{n}"), &format!("pi_x{n}"), 6_000);
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    let pages = Pages::logged_in(app, &app.read_token, "waiting").await;
    let expected = format!("reversals.parked</th><td class=\"number\">{parked}</td>");
    eventually("it is parked", || async { pages.page("/ui/queues").await.contains(&expected).then_some(()) }).await;
}
