//! Who is logged in: a signed cookie, and nothing on the server. It ends after some hours, or with the token that it began with.

use std::net::IpAddr;

use axum::http::header::{COOKIE, HOST};
use axum::http::{HeaderMap, HeaderName};
use chrono::{DateTime, TimeDelta, Utc};
use subtle::ConstantTimeEq;

use crate::http::{Rights, SessionKey, Tokens};

/// A shift.
const LIFETIME: TimeDelta = TimeDelta::hours(8);

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// As the history shows it.
    pub(super) operator: String,
    /// What its token may do.
    pub(super) rights: Rights,
}

/// The value of the header that begins a session.
pub(super) fn begin(headers: &HeaderMap, operator: &str, key: &SessionKey, now: DateTime<Utc>) -> String {
    cookie(headers, &seal(operator, key, now), LIFETIME)
}

/// The value of the header that ends a session.
pub(super) fn end(headers: &HeaderMap) -> String {
    cookie(headers, "", TimeDelta::zero())
}

/// The session of a request.
pub(super) fn of(headers: &HeaderMap, tokens: &Tokens, now: DateTime<Utc>) -> Option<Session> {
    let name = name(headers);
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(given, value)| (given == name).then(|| open(value, tokens, now)).flatten())
}

/// `UNTIL.OPERATOR.SIGNATURE`, the operator in hex.
fn seal(operator: &str, key: &SessionKey, now: DateTime<Utc>) -> String {
    let text = format!("{}.{}", (now + LIFETIME).timestamp(), hex::encode(operator));
    format!("{text}.{}", hex::encode(key.sign(&text)))
}

fn open(value: &str, tokens: &Tokens, now: DateTime<Utc>) -> Option<Session> {
    let (text, signature) = value.rsplit_once('.')?;
    let mut given = [0; 32];
    hex::decode_to_slice(signature, &mut given).ok()?;
    let signed_by = tokens.session_keys().filter(|(_, key)| bool::from(key.sign(text).ct_eq(&given)));
    let (rights, _) = signed_by.last()?;
    let (until, operator) = text.split_once('.')?;
    until.parse().ok().filter(|until: &i64| *until > now.timestamp())?;
    Some(Session { operator: String::from_utf8(hex::decode(operator).ok()?).ok()?, rights })
}

fn cookie(headers: &HeaderMap, value: &str, lifetime: TimeDelta) -> String {
    let secure = if is_loopback_http(headers) { "" } else { "; Secure" };
    let (name, seconds) = (name(headers), lifetime.num_seconds());
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Browsers take a name with this prefix only over https, and only from the host itself.
fn name(headers: &HeaderMap) -> &'static str {
    if is_loopback_http(headers) { "clawback" } else { "__Host-clawback" }
}

/// Whether the browser is on this machine and speaks plain HTTP, where no other one could listen.
pub(super) fn is_loopback_http(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text(HeaderName::from_static("x-forwarded-proto")).eq_ignore_ascii_case("https") {
        return false;
    }
    let host = text(HOST);
    let host = host.strip_prefix('[').map_or_else(
        || host.rsplit_once(':').map_or(host, |(host, _)| host),
        |rest| rest.split(']').next().unwrap_or_default(),
    );
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;
    use crate::config::SecretList;

    fn tokens(operate: &str, read: &str) -> Tokens {
        Tokens::new(Some(&operate.parse::<SecretList>().unwrap()), Some(&read.parse().unwrap()))
    }

    #[test]
    fn a_session_has_its_tokens_rights_and_ends_with_the_token_and_with_time() {
        let (before, now) = (tokens("new,old", "look"), Utc::now());
        for (token, rights) in [("new", Rights::Operate), ("old", Rights::Operate), ("look", Rights::Read)] {
            let (_, key) = before.log_in(token, None).unwrap();
            let sealed = seal("ada. ö", &key, now);
            let expected = Some(Session { operator: "ada. ö".to_owned(), rights });
            assert_eq!(open(&sealed, &before, now), expected);
            assert_eq!(open(&sealed, &before, now + LIFETIME - TimeDelta::seconds(1)), expected);
            assert_eq!(open(&sealed, &before, now + LIFETIME), None);
            assert_eq!(open(&sealed, &tokens("rotated", "both"), now), None);
            let forged = sealed.replacen("6164", "6165", 1);
            assert_ne!(forged, sealed);
            assert_eq!(open(&forged, &before, now), None);
        }
        for bad in ["", ".", "..", "1.2.3", "9999999999.616461.00"] {
            assert_eq!(open(bad, &before, now), None, "{bad}");
        }
    }

    #[test]
    fn the_cookie_is_secure_but_on_this_machine() {
        let headers = |host: &str, proto: Option<&str>| {
            let proto = proto.map(|proto| (HeaderName::from_static("x-forwarded-proto"), proto.parse().unwrap()));
            HeaderMap::from_iter([(HOST, host.parse().unwrap())].into_iter().chain(proto))
        };
        for (host, proto, secure) in [
            ("127.0.0.1:8080", None, false),
            ("localhost", None, false),
            ("[::1]:8080", None, false),
            ("localhost:8080", Some("https"), true),
            ("clawback.example", Some("https"), true),
            ("clawback.example:8080", None, true),
            ("127.0.0.1.evil.example", None, true),
        ] {
            let cookie = end(&headers(host, proto));
            assert_eq!(cookie.contains("; Secure"), secure, "{host}");
            assert_eq!(cookie.starts_with("__Host-"), secure, "{host}");
            assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        }
    }
}
