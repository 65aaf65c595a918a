//! RabbitMQ's management API: an eye that is not the library's own, and a hand that breaks things.

use super::{eventually, required};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct Management {
    client: Client,
    base: Url,
    vhost: String,
}

impl Management {
    /// From `RABBITMQ_MANAGEMENT_URL` (with user and password), for the vhost of the AMQP URL.
    pub(crate) fn from_environment(amqp_url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let path = Url::parse(amqp_url).unwrap().path().trim_start_matches('/').to_owned();
        let vhost = if path.is_empty() { "%2F".to_owned() } else { path };
        Self { client: Client::new(), base: Url::parse(&required("RABBITMQ_MANAGEMENT_URL")).unwrap(), vhost }
    }

    pub(crate) fn url(&self) -> Url {
        self.base.clone()
    }

    /// Sets a policy for one queue, under the queue's name.
    pub(crate) async fn set_policy(&self, queue: &str, definition: Value) {
        let pattern = format!("^{}$", queue.replace('.', r"\."));
        let body = json!({ "pattern": pattern, "apply-to": "queues", "definition": definition });
        self.call(Method::PUT, &format!("policies/{}/{queue}", self.vhost), Some(body)).await;
    }

    /// Who we are: the broker closes the channel of a publisher that names another user.
    pub(crate) fn user(&self) -> &str {
        self.base.username()
    }

    /// The broker's major version.
    pub(crate) async fn major_version(&self) -> u32 {
        let overview = self.call(Method::GET, "overview", None).await.unwrap();
        overview["rabbitmq_version"].as_str().unwrap().split('.').next().unwrap().parse().unwrap()
    }

    /// A queue's arguments and type.
    pub(crate) async fn queue(&self, name: &str) -> Value {
        self.call(Method::GET, &format!("queues/{}/{name}", self.vhost), None).await.expect("no such queue")
    }

    pub(crate) async fn bindings(&self, queue: &str) -> Value {
        self.call(Method::GET, &format!("queues/{}/{queue}/bindings", self.vhost), None).await.expect("no such queue")
    }

    pub(crate) async fn delete(&self, objects: &str, name: &str) {
        self.call(Method::DELETE, &format!("{objects}/{}/{name}", self.vhost), None).await;
    }

    /// Declares a queue behind the library's back.
    pub(crate) async fn declare(&self, queue: &str, arguments: Value) {
        let body = json!({ "durable": true, "arguments": arguments });
        self.call(Method::PUT, &format!("queues/{}/{queue}", self.vhost), Some(body)).await;
    }

    /// Declares a fanout exchange that no queue is bound to.
    pub(crate) async fn declare_exchange(&self, name: &str) {
        let body = json!({ "type": "fanout", "durable": true });
        self.call(Method::PUT, &format!("exchanges/{}/{name}", self.vhost), Some(body)).await;
    }

    /// Publishes as some other program would, and says whether a queue took it.
    pub(crate) async fn publish(&self, queue: &str, properties: Value, payload: &str) -> bool {
        let body = json!({
            "properties": properties, "routing_key": queue, "payload": payload, "payload_encoding": "string"
        });
        let path = format!("exchanges/{}/amq.default/publish", self.vhost);
        self.call(Method::POST, &path, Some(body)).await.unwrap()["routed"] == true
    }

    /// Looks at messages; they stay in the queue. The quorum queue's own note of this delivery is left out.
    pub(crate) async fn get_messages(&self, queue: &str, count: u32) -> Vec<Value> {
        self.take_messages(queue, count, "ack_requeue_true").await
    }

    /// Takes messages and rejects them; they stay, until the queue's delivery limit.
    pub(crate) async fn reject_messages(&self, queue: &str, count: u32) -> Vec<Value> {
        self.take_messages(queue, count, "reject_requeue_true").await
    }

    async fn take_messages(&self, queue: &str, count: u32, ackmode: &str) -> Vec<Value> {
        let body = json!({ "count": count, "ackmode": ackmode, "encoding": "auto" });
        let answer = self.call(Method::POST, &format!("queues/{}/{queue}/get", self.vhost), Some(body)).await.unwrap();
        let mut messages = answer.as_array().unwrap().clone();
        for message in &mut messages {
            if let Some(headers) = message["properties"]["headers"].as_object_mut() {
                headers.remove("x-delivery-count");
            }
        }
        messages
    }

    /// What the button "Move messages" does.
    pub(crate) async fn move_messages(&self, from: &str, to: &str) {
        let uri = format!("amqp:///{}", self.vhost);
        let body = json!({ "value": {
            "src-uri": uri, "src-queue": from, "src-delete-after": "queue-length",
            "dest-uri": uri, "dest-queue": to, "add-forward-headers": false, "ack-mode": "on-confirm",
        }});
        self.call(Method::PUT, &format!("parameters/shovel/{}/move-{from}", self.vhost), Some(body)).await;
    }

    /// The consumers of a queue, with their prefetch, when there are `count`.
    pub(crate) async fn consumers(&self, queue: &str, count: usize) -> Vec<Value> {
        eventually("the consumers", async || {
            let consumers = self.call(Method::GET, &format!("consumers/{}", self.vhost), None).await?;
            let ours: Vec<Value> =
                consumers.as_array()?.iter().filter(|consumer| consumer["queue"]["name"] == queue).cloned().collect();
            (ours.len() == count).then_some(ours)
        })
        .await
    }

    /// Closes the open connection of this name from the broker's side, once it is there.
    pub(crate) async fn close_connection(&self, connection_name: &str) {
        let id = eventually("the connection", async || self.connection(connection_name).await).await;
        self.call(Method::DELETE, &format!("connections/{}", id.replace(' ', "%20").replace('>', "%3E")), None).await;
    }

    async fn connection(&self, connection_name: &str) -> Option<String> {
        let connections = self.call(Method::GET, "connections", None).await?;
        let ours = connections
            .as_array()?
            .iter()
            .find(|connection| connection["client_properties"]["connection_name"] == connection_name)?;
        Some(ours["name"].as_str()?.to_owned())
    }

    /// `None` for "not found"; every other failure fails the test.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<Value> {
        let url = self.base.join(&format!("/api/{path}")).unwrap();
        let is_closing = method == Method::DELETE && path.starts_with("connections/");
        let request = self.client.request(method, url);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let response = request.send().await.expect("RabbitMQ's management API cannot be reached");
        // RabbitMQ answers 500 to the closing of a connection that is just ending by itself: it is gone either way.
        if response.status() == 404 || (is_closing && response.status() == 500) {
            return None;
        }
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {text}");
        Some(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
