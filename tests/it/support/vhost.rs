//! A virtual host of its own for each test, and what RabbitMQ's management API tells and does there.

use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{eventually, http_client, required};

/// An empty virtual host.
pub(crate) struct Vhost {
    pub(crate) amqp_url: String,
    management: Url,
    pub(crate) name: String,
    http: reqwest::Client,
}

impl Vhost {
    /// On the broker that `./dev test` started for all tests.
    pub(crate) async fn create() -> Self {
        Self::create_on(&required("AMQP_URL"), &required("RABBITMQ_MANAGEMENT_URL")).await
    }

    pub(crate) async fn create_on(amqp_url: &str, management: &str) -> Self {
        let name = format!("test-{}", Uuid::new_v4().simple());
        let mut amqp = Url::parse(amqp_url).unwrap();
        amqp.set_path(&name);
        let management = Url::parse(management).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let vhost = Self { amqp_url: amqp.to_string(), management, name, http: http_client() };
        let user = amqp.username();
        vhost.call(reqwest::Method::PUT, &format!("vhosts/{}", vhost.name), json!({})).await;
        let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
        vhost.call(reqwest::Method::PUT, &format!("permissions/{}/{user}", vhost.name), everything).await;
        vhost
    }

    pub(crate) async fn delete(&self) {
        self.call(reqwest::Method::DELETE, &format!("vhosts/{}", self.name), Value::Null).await;
    }

    /// Deletes every message of a queue.
    pub(crate) async fn purge(&self, queue: &str) {
        self.call(reqwest::Method::DELETE, &format!("queues/{}/{queue}/contents", self.name), Value::Null).await;
    }

    pub(crate) async fn delete_queue(&self, queue: &str) {
        self.call(reqwest::Method::DELETE, &format!("queues/{}/{queue}", self.name), Value::Null).await;
    }

    /// Makes a queue or a policy (`queues`, `policies`) as described.
    pub(crate) async fn put_object(&self, kind: &str, name: &str, description: Value) {
        self.call(reqwest::Method::PUT, &format!("{kind}/{}/{name}", self.name), description).await;
    }

    /// Makes a user, or gives it another password, with these rights here. `tags` are separated by commas.
    pub(crate) async fn put_user(&self, user: &str, password: &str, tags: &str, rights: &Value) {
        let described = json!({"password": password, "tags": tags});
        self.call(reqwest::Method::PUT, &format!("users/{user}"), described).await;
        let rights = json!({"configure": rights["configure"], "write": rights["write"], "read": rights["read"]});
        self.call(reqwest::Method::PUT, &format!("permissions/{}/{user}", self.name), rights).await;
    }

    pub(crate) async fn delete_user(&self, user: &str) {
        self.call(reqwest::Method::DELETE, &format!("users/{user}"), Value::Null).await;
    }

    /// Ends the connections of a user, all of which are in this virtual host.
    pub(crate) async fn hang_up(&self, user: &str) {
        let path = format!("vhosts/{}/connections", self.name);
        // The management API hears of a connection a little later.
        let found = eventually(&format!("connections of {user}"), || async {
            let answer = self.call(reqwest::Method::GET, &path, Value::Null).await;
            let all = answer.as_array().cloned().unwrap_or_default();
            let names = all.iter().filter(|connection| connection["user"] == user);
            let names: Vec<String> = names.filter_map(|of| of["name"].as_str().map(str::to_owned)).collect();
            (!names.is_empty()).then_some(names)
        })
        .await;
        for name in found {
            // It may have gone already.
            self.send(reqwest::Method::DELETE, &["connections", &name], Value::Null).await;
        }
    }

    /// All queues, as the management API shows them.
    pub(crate) async fn queues(&self) -> Vec<Value> {
        let answer = self.call(reqwest::Method::GET, &format!("queues/{}", self.name), Value::Null).await;
        answer.as_array().cloned().unwrap_or_default()
    }

    /// Takes one message out of a queue, and waits until there is one.
    pub(crate) async fn take(&self, queue: &str) -> Value {
        let body = json!({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"});
        eventually(&format!("a message in {queue}"), || async {
            let got =
                self.call(reqwest::Method::POST, &format!("queues/{}/{queue}/get", self.name), body.clone()).await;
            got.as_array().and_then(|messages| messages.first().cloned())
        })
        .await
    }

    /// Whether a queue has no message that could be taken.
    pub(crate) async fn is_empty(&self, queue: &str) -> bool {
        let body = json!({"count": 1, "ackmode": "reject_requeue_true", "encoding": "auto"});
        let got = self.call(reqwest::Method::POST, &format!("queues/{}/{queue}/get", self.name), body).await;
        got.as_array().unwrap().is_empty()
    }

    /// Waits until a queue has exactly so many messages.
    pub(crate) async fn has(&self, queue: &str, number: i64) {
        eventually(&format!("{queue} has {number} messages"), || async {
            let found = self.queues().await.into_iter().find(|it| it["name"] == queue)?;
            (found["messages"].as_i64() == Some(number)).then_some(())
        })
        .await;
    }

    /// Publishes a message as it was taken, properties and headers included: what "Move messages" does.
    pub(crate) async fn put(&self, queue: &str, message: &Value) {
        let body = json!({
            "routing_key": queue,
            "properties": message["properties"],
            "payload": message["payload"],
            "payload_encoding": message["payload_encoding"],
        });
        let path = format!("exchanges/{}/amq.default/publish", self.name);
        let answer = self.call(reqwest::Method::POST, &path, body).await;
        assert_eq!(answer["routed"], true, "{queue} is not there");
    }

    async fn send(&self, method: reqwest::Method, path: &[&str], body: Value) -> reqwest::Response {
        let mut url = self.management.clone();
        url.set_username("").unwrap();
        url.set_password(None).unwrap();
        url.path_segments_mut().unwrap().clear().push("api").extend(path);
        let request = self.http.request(method, url);
        let request = request.basic_auth(self.management.username(), self.management.password());
        let request = if body.is_null() { request } else { request.json(&body) };
        request.send().await.expect("RABBITMQ_MANAGEMENT_URL can't be reached")
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let answer = self.send(method.clone(), &path.split('/').collect::<Vec<_>>(), body).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}
