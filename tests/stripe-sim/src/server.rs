//! The HTTP server: serves the routes, and cuts a connection where they ask for it, which axum's own server can't.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::routes::{self, Cut};
use crate::state::Shared;

/// Serves until it is dropped, which closes every connection.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, Arc::clone(&shared)));
            }
            // Too many open files, mostly: the ones that end make room.
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                connections.join_next().await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    // Answers are single writes; waiting to fill a packet would only add delay. An error leaves that delay.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(routes::router(shared));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answer = router.call(request);
        async move {
            let response: Response = answer.await.map_err(|never| match never {})?;
            if response.extensions().get::<Cut>().is_some() { Err(CutOff) } else { Ok(response) }
        }
    });
    // It ends with an error when it is cut off, or when the client goes.
    if let Err(error) =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await
    {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Makes hyper close the connection without an answer.
#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a fault cuts the connection")
    }
}

impl Error for CutOff {}
