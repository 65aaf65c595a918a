//! Who is calling: an API key as a Bearer token or as the user of Basic authentication, as Stripe takes both.
//!
//! There is one account. Which of its keys are accepted is the state's to say; refused keys are shown masked, as Stripe
//! does.

use std::collections::BTreeSet;

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::shapes::ApiError;

/// Lets a request in, or says why not.
pub(crate) fn admit(authorization: Option<&HeaderValue>, allowed: Option<&BTreeSet<String>>) -> Result<(), ApiError> {
    let Some(key) = authorization.and_then(api_key) else {
        return Err(ApiError::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, \
             using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
                .to_owned(),
        ));
    };
    let is_allowed = match allowed {
        Some(allowed) => allowed.contains(&key),
        None => key.starts_with("sk_test_") || key.starts_with("rk_test_"),
    };
    if is_allowed { Ok(()) } else { Err(ApiError::unauthorized(format!("Invalid API Key provided: {}", mask(&key)))) }
}

fn api_key(header: &HeaderValue) -> Option<String> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned()).filter(|key| !key.is_empty());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(user, _)| user.to_owned()).filter(|key| !key.is_empty())
}

/// `sk_test_****cdef`
fn mask(key: &str) -> String {
    let shown: String = key.chars().skip(key.chars().count().saturating_sub(4).max(8)).collect();
    let prefix: String = key.chars().take(8).collect();
    format!("{prefix}****{shown}")
}
