//! Chromium without a window, by the few commands of WebDriver (W3C) that a test needs. The crates that speak all of it bring a
//! license that deny.toml does not allow, or a megabyte of generated code.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{DEADLINE, eventually};

/// The key of an element's id, as the standard has it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser; it ends with the test.
pub(crate) struct Browser {
    http: reqwest::Client,
    session: String,
    _driver: Child,
}

/// How the browser is set up.
pub(crate) struct Look {
    /// Dark colors, or light ones.
    pub(crate) is_dark: bool,
    /// Whether pages may run scripts. What a test runs is run in any case.
    pub(crate) runs_scripts: bool,
}

impl Browser {
    /// A window of this size.
    pub(crate) async fn start(width: u32, height: u32, Look { is_dark, runs_scripts }: Look) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is missing: `./dev test` installs it (the packages chromium and chromium-driver)");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(DEADLINE, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("chromedriver has ended");
                if let Some((_, port)) = line.rsplit_once("successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
        });
        let port = port.await.expect("chromedriver does not start");
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark));
        let size = format!("--window-size={width},{height}");
        // As root, and in containers, Chromium has neither a sandbox nor much shared memory.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", &scheme, &size];
        // 1: pages run scripts; 2: they do not.
        let preferences =
            json!({"profile.managed_default_content_settings.javascript": if runs_scripts { 1 } else { 2 }});
        let options = json!({"args": arguments, "prefs": preferences});
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let http = reqwest::Client::new();
        let url = format!("http://127.0.0.1:{port}/session");
        let answer: Value = http.post(&url).json(&wanted).send().await.unwrap().json().await.unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("Chromium does not start: {answer}"));
        Self { http, session: format!("{url}/{id}"), _driver: driver }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("url", json!({"url": url})).await;
    }

    /// Types into the first element that matches.
    pub(crate) async fn type_into(&self, css: &str, text: &str) {
        let id = self.element("css selector", css).await;
        self.post(&format!("element/{id}/value"), json!({"text": text})).await;
    }

    /// Clicks the first element that matches, and waits until its page is gone.
    pub(crate) async fn click(&self, css: &str) {
        self.leave_by("css selector", css).await;
    }

    /// Clicks the first element that matches, which leads nowhere.
    pub(crate) async fn click_and_stay(&self, css: &str) {
        let id = self.element("css selector", css).await;
        self.post(&format!("element/{id}/click"), json!({})).await;
    }

    /// Follows the first link with this text.
    pub(crate) async fn follow(&self, text: &str) {
        self.leave_by("link text", text).await;
    }

    async fn leave_by(&self, using: &str, value: &str) {
        let id = self.element(using, value).await;
        self.post(&format!("element/{id}/click"), json!({})).await;
        eventually("the next page comes", || async {
            let name = self.http.get(format!("{}/element/{id}/name", self.session)).send().await.unwrap();
            (!name.status().is_success()).then_some(())
        })
        .await;
    }

    /// Presses a key (WebDriver's code).
    pub(crate) async fn press(&self, key: &str) {
        let keys = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        self.post("actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})).await;
    }

    /// The text that a person sees.
    pub(crate) async fn text(&self) -> String {
        let id = self.element("css selector", "body").await;
        let text = self.get(&format!("element/{id}/text")).await;
        text.as_str().unwrap().to_owned()
    }

    /// The value of a script.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": script, "args": []})).await
    }

    /// The value that a script hands to its last argument.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        self.post("execute/async", json!({"script": script, "args": []})).await
    }

    /// Writes what is shown to a PNG file.
    pub(crate) async fn picture(&self, file: &Path) {
        use base64::Engine;
        let picture = self.get("screenshot").await;
        let png = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        tokio::fs::write(file, png).await.unwrap();
    }

    /// Closes the window.
    pub(crate) async fn close(self) {
        self.http.delete(&self.session).send().await.unwrap();
    }

    async fn element(&self, using: &str, value: &str) -> String {
        let found = self.post("element", json!({"using": using, "value": value})).await;
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("no element {value:?}: {found}")).to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        Self::value(self.http.get(format!("{}/{path}", self.session))).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        Self::value(self.http.post(format!("{}/{path}", self.session)).json(&body)).await
    }

    async fn value(request: reqwest::RequestBuilder) -> Value {
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].clone()
    }
}
