//! The files that the pages load: embedded, and named by their content, so that browsers keep them.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

const CSS: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");
const REFRESH: &str = include_str!("refresh.js");

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::new().chain_update(CSS).chain_update(ICON).chain_update(REFRESH).finalize();
    hex::encode(&digest[..8])
});

/// What changes in a file's URL when the file does.
pub(super) fn version() -> &'static str {
    &VERSION
}

pub(super) async fn css(headers: HeaderMap) -> Response {
    asset(&headers, "text/css; charset=utf-8", CSS)
}

pub(super) async fn icon(headers: HeaderMap) -> Response {
    asset(&headers, "image/svg+xml", ICON)
}

pub(super) async fn refresh(headers: HeaderMap) -> Response {
    asset(&headers, "text/javascript; charset=utf-8", REFRESH)
}

fn asset(headers: &HeaderMap, content_type: &'static str, text: &'static str) -> Response {
    let tag = format!("\"{}\"", version());
    let kept = [(ETAG, tag.clone()), (CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned())];
    match headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        true => (StatusCode::NOT_MODIFIED, kept).into_response(),
        false => (kept, [(CONTENT_TYPE, content_type)], text).into_response(),
    }
}
