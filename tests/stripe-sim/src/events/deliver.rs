//! Sends events to an endpoint. What is not answered with a 2xx is sent again with the next delivery, after the rest.

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use axum::body::Body;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use url::Url;

use super::{Endpoint, Webhook, render};
use crate::state::Shared;

/// Stripe waits longer; no receiver should.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What an endpoint answered to an event.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    /// What was sent.
    pub webhook: Webhook,
    /// The HTTP status; none when there was no answer.
    pub status: Option<u16>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// Sends all that an endpoint is still to be told; an error says that there is no such endpoint.
pub(crate) async fn deliver(shared: &Shared, id: &str) -> Result<Vec<Delivery>, String> {
    let pending = shared.change(|state| {
        let registered = state.events.endpoints.get_mut(id)?;
        let (endpoint, positions) = (registered.endpoint.clone(), std::mem::take(&mut registered.pending));
        let events = positions.into_iter().filter_map(|at| state.events.all.get(at).map(|event| (at, event)));
        let webhooks: Vec<_> = events.map(|(at, event)| (at, render(state, &endpoint, event))).collect();
        Some((endpoint, webhooks))
    });
    let (endpoint, webhooks) = pending.ok_or_else(|| format!("endpoint must exist (got {id:?})"))?;
    let mut deliveries = Vec::new();
    for (at, webhook) in webhooks {
        let sent = tokio::time::timeout(TIMEOUT, send(&endpoint, &webhook)).await;
        let (status, error) = match sent.unwrap_or_else(|_| Err(anyhow!("no answer within {TIMEOUT:?}"))) {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        if !status.is_some_and(|status| (200..300).contains(&status)) {
            shared.change(|state| {
                if let Some(registered) = state.events.endpoints.get_mut(id) {
                    registered.pending.push_back(at);
                }
            });
        }
        deliveries.push(Delivery { webhook, status, error });
    }
    Ok(deliveries)
}

async fn send(endpoint: &Endpoint, webhook: &Webhook) -> anyhow::Result<u16> {
    let url = Url::parse(&endpoint.url).with_context(|| format!("url must be one (got {:?})", endpoint.url))?;
    ensure!(url.scheme() == "http", "url must begin with http:// (got {:?})", endpoint.url);
    let host = url.host_str().context("url must name a host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let running = tokio::spawn(connection);
    let request = Request::post(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header("host", format!("{host}:{port}"))
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", &webhook.signature)
        .body(Body::from(webhook.body.clone()))?;
    let answer = sender.send_request(request).await;
    running.abort();
    Ok(answer?.status().as_u16())
}
