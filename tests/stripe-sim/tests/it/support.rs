//! A caller of the simulator that knows nothing of it but HTTP.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use stripe_sim::Sim;

/// For what must happen; only a failing test waits this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Caller {
    pub(crate) sim: Sim,
    http: reqwest::Client,
}

pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `error.code`, or `error.type` where there is none.
    pub(crate) fn error(&self) -> &str {
        let error = &self.body["error"];
        error["code"].as_str().or_else(|| error["type"].as_str()).unwrap_or_default()
    }
}

impl Caller {
    /// Of a simulator with the transfer `tr_1` of 9,000.
    pub(crate) fn new() -> Caller {
        let sim = Sim::start();
        sim.add_transfer("tr_1", 9_000, "eur", "acct_1");
        Caller::of(sim)
    }

    pub(crate) fn of(sim: Sim) -> Caller {
        // An error only says that another test has chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Caller { sim, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.sim.base_url()))
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        got(self.request(Method::GET, path).bearer_auth("sk_test_1").send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, form: &[(&str, &str)]) -> Got {
        got(self.try_post(path, key, form).await.unwrap()).await
    }

    pub(crate) async fn try_post(&self, path: &str, key: &str, form: &[(&str, &str)]) -> reqwest::Result<Response> {
        let request = self.request(Method::POST, path).bearer_auth("sk_test_1").header("idempotency-key", key);
        request.form(form).send().await
    }

    /// Reverses part of `tr_1`.
    pub(crate) async fn reverse(&self, key: &str, amount: &str) -> Got {
        self.post("/v1/transfers/tr_1/reversals", key, &[("amount", amount)]).await
    }

    /// What is reversed of `tr_1`.
    pub(crate) fn reversed(&self) -> i64 {
        self.sim.ledger().transfers["tr_1"].amount_reversed()
    }
}

pub(crate) async fn got(response: Response) -> Got {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Got { status, headers, body }
}
