//! The pages in Chromium, as an operator uses them.

use std::path::PathBuf;

use crate::support::{Backend, Browser, Look, TestApp, eventually, required};
use crate::ui::play;

/// The pages beside those of the walk that the documentation has pictures of.
const PICTURES: [(&str, &str); 12] = [
    ("attention", "attention"),
    ("held", "held"),
    ("refunds", "refunds"),
    ("disputes", "disputes"),
    ("transfers", "transfers"),
    ("sellers", "sellers"),
    ("sellers?id=bakery", "seller"),
    ("trace?id=re_0004", "story-of-a-wait"),
    ("queues", "queues"),
    ("operations", "operations"),
    ("reconcile", "reconcile"),
    ("doctor", "doctor"),
];

/// What axe-core finds wrong with a page, each with its first place.
const VIOLATIONS: &str = "const done = arguments[arguments.length - 1];
    axe.run().then(found => done(found.violations.map(one => [one.id, one.impact, one.nodes[0].html])), error => done(String(error)))";

/// Fills in the form that is open.
async fn log_in(browser: &Browser, token: &str) {
    browser.type_into("input[name=token]", token).await;
    browser.type_into("input[name=operator]", "ada").await;
    browser.click("button.go").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_finds_a_failed_debt_replays_its_group_and_sees_it_in_the_audit() {
    TestApp::run(Backend::Sqlite, async |mut app| {
        app.restart_with(&[("DISPUTE_POLICY", "lost"), ("REFUNDS_SINCE", "2024-01-01")]).await;
        play(&app, 48).await;
        // Everything works without scripts.
        let browser = Browser::start(1280, 900, Look { is_dark: false, runs_scripts: false }).await;
        let url = |path: &str| format!("{}{path}", app.base_url);

        browser.open(&url("/ui/refunds?status=held")).await;
        log_in(&browser, &app.api_token).await;
        let text = browser.text().await;
        assert!(text.contains("re_0021") && text.contains("held"), "back where the login interrupted: {text}");

        browser.follow("Overview").await;
        picture(&browser, "overview").await;
        let (passed, expected) = focus_order(&browser).await;
        assert_eq!(passed, expected, "Tab goes through the page in its order");
        assert_eq!(passed[0], "Skip to content");
        let text = browser.text().await;
        for expected in ["Money at risk", "Failed and still owed", "resource_missing", "account_closed", "TEST"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(
            browser.run("return document.querySelectorAll('b, i').length").await,
            0,
            "markup of a seller's name"
        );
        assert_eq!(browser.run("return document.styleSheets[0].cssRules.length > 50").await, true);

        browser.follow("Reversals").await;
        picture(&browser, "reversals").await;
        browser.type_into("input[name=id]", "re_0006").await;
        browser.click("nav.main button").await;
        let text = browser.text().await;
        assert!(text.contains("The story of re_0006") && text.contains("No such transfer: 'tr_0006a'"), "{text}");
        assert!(text.contains("No further try until it is replayed."), "{text}");
        picture(&browser, "story").await;

        app.sim.add_transfer("tr_0006a", 100_000, "eur", "acct_bakery");
        browser.follow("Failed and parked").await;
        picture(&browser, "failed").await;
        browser.click("button[aria-label='Replay: resource_missing']").await;
        picture(&browser, "preview").await;
        browser.click_and_stay("button.go").await;
        assert!(browser.text().await.contains("Replay 2 rows"), "without a reason the browser sends nothing");
        browser.type_into("input[name=reason]", "the transfers are there now").await;
        browser.click("button.go").await;
        eventually("the operation is done", async || {
            browser.open(browser.run("return location.href").await.as_str().unwrap()).await;
            browser.text().await.contains("2 done, 0 refused, 0 left").then_some(())
        })
        .await;

        browser.follow("Audit").await;
        let text = browser.text().await;
        assert!(text.contains("the transfers are there now") && text.contains("ada"), "{text}");
        picture(&browser, "audit").await;
        for (path, name) in PICTURES {
            browser.open(&url(&format!("/ui/{path}"))).await;
            picture(&browser, name).await;
        }
        browser.click("form.who button").await;
        browser.open(&url("/ui/")).await;
        assert!(browser.text().await.contains("Log in"));
        picture(&browser, "login").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_telephone_shows_every_page_without_scrolling_sideways_and_all_can_be_read_aloud() {
    TestApp::run(Backend::Sqlite, async |app| {
        play(&app, 24).await;
        let browser = Browser::start(500, 900, Look { is_dark: true, runs_scripts: true }).await;
        let axe = axe();
        browser.open(&format!("{}/ui/login", app.base_url)).await;
        log_in(&browser, &app.read_token).await;
        for path in [
            "",
            "refunds",
            "disputes",
            "reversals",
            "transfers",
            "parked",
            "sellers",
            "sellers?id=bakery",
            "trace?id=re_0006",
            "queues",
            "audit",
            "operations",
            "attention",
            "held",
            "reconcile",
            "doctor",
        ] {
            browser.open(&format!("{}/ui/{path}", app.base_url)).await;
            let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.run(wide).await, 0, "{path}");
            can_be_read_aloud(&browser, axe.as_deref(), path).await;
        }
        browser.open(&format!("{}/ui/", app.base_url)).await;
        picture(&browser, "telephone").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_fills_in_can_be_read_aloud_in_the_light_theme_too() {
    TestApp::run(Backend::Sqlite, async |app| {
        play(&app, 24).await;
        let browser = Browser::start(1280, 900, Look { is_dark: false, runs_scripts: true }).await;
        let axe = axe();
        browser.open(&format!("{}/ui/login", app.base_url)).await;
        can_be_read_aloud(&browser, axe.as_deref(), "login").await;
        log_in(&browser, &app.api_token).await;
        let filter = ["operations", "preview", "close_reversals", "--failure-code", "resource_missing"];
        let previewed = app.cli(&[&filter[..], &["--format", "json"]].concat()).await.json();
        let operation = format!("operations/{}", previewed["id"].as_str().unwrap());
        let failed = app.cli(&["reversals", "list", "--status", "permanently_failed", "--format", "json"]).await.json();
        let replay = format!("act/replay?id={}", failed["reversals"][0]["id"].as_str().unwrap());
        for path in ["", "held", "reversals?status=permanently_failed", "parked", "queues", &operation, &replay] {
            browser.open(&format!("{}/ui/{path}", app.base_url)).await;
            can_be_read_aloud(&browser, axe.as_deref(), path).await;
        }
        browser.close().await;
    })
    .await;
}

/// The text of axe-core. `./dev test` says where it is, or that it had to be left out.
fn axe() -> Option<String> {
    let file = required("AXE_CORE");
    (file != "left-out").then(|| std::fs::read_to_string(file).unwrap())
}

async fn can_be_read_aloud(browser: &Browser, axe: Option<&str>, path: &str) {
    let Some(axe) = axe else { return };
    browser.run(axe).await;
    let violations = browser.run_async(VIOLATIONS).await;
    assert_eq!(violations.as_array().map(Vec::len), Some(0), "{path}: {violations:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_scripts_run_an_operations_progress_is_renewed_by_itself() {
    TestApp::run(Backend::Sqlite, async |app| {
        play(&app, 48).await;
        let filter = ["operations", "preview", "close_reversals", "--failure-code", "resource_missing"];
        let previewed = app.cli(&[&filter[..], &["--format", "json"]].concat()).await.json();
        let id = previewed["id"].as_str().unwrap();
        let browser = Browser::start(1280, 900, Look { is_dark: true, runs_scripts: true }).await;
        let here = format!("{}/ui/operations/{id}", app.base_url);
        browser.open(&here).await;
        log_in(&browser, &app.api_token).await;
        let started =
            app.cli(&["operations", "start", id, "--reason", "written off", "--yes", "--spread", "16s"]).await;
        assert_eq!(started.code, 0, "{started:?}");
        browser.open(&here).await;
        assert!(browser.text().await.contains("Abort"), "it runs");
        browser.run("window.isTheSamePage = true").await;
        eventually("it is seen to be done", async || {
            browser.text().await.contains("2 done, 0 refused, 0 left").then_some(())
        })
        .await;
        eventually("what can be done follows", async || (!browser.text().await.contains("Abort")).then_some(())).await;
        assert_eq!(browser.run("return window.isTheSamePage").await, true);
        browser.close().await;
    })
    .await;
}

/// What the Tab key passes first, and what stands first on the page.
async fn focus_order(browser: &Browser) -> (Vec<String>, Vec<String>) {
    const NAME: &str =
        "const name = it => (it.getAttribute('aria-label') || it.textContent || it.placeholder || '').trim();";
    let texts = |found: serde_json::Value| -> Vec<String> { serde_json::from_value(found).unwrap() };
    let all =
        "return [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')].map(name)";
    let expected = texts(browser.run(&format!("{NAME} {all}")).await)[..25].to_vec();
    let mut passed = Vec::new();
    for _ in 0..expected.len() {
        browser.press("\u{e004}").await;
        passed.push(
            browser.run(&format!("{NAME} return name(document.activeElement)")).await.as_str().unwrap().to_owned(),
        );
    }
    (passed, expected)
}

/// Keeps a picture where `UI_PICTURES` says, for the documentation.
async fn picture(browser: &Browser, name: &str) {
    let Some(folder) = std::env::var_os("UI_PICTURES").map(PathBuf::from) else { return };
    browser.picture(&folder.join(format!("ui-{name}.png"))).await;
}
