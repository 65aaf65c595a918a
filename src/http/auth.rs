//! Guards `/v1` and `/metrics` with bearer tokens, each with its rate limit; the pages under `/ui/` log in with the same tokens.
//! Never logs what a caller sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::limits::Limits;
use super::problem::{Kind, Problem};
use super::sampled::Sampled;
use crate::config::SecretList;

type TokenDigest = [u8; 32];

/// The API's tokens and their rate limits, which clones share. Keeps digests: they have one length, so comparing them reveals
/// no token's length.
#[derive(Clone)]
pub struct Tokens {
    operate: Vec<TokenDigest>,
    read: Vec<TokenDigest>,
    limits: Arc<Limits>,
    failed_logins: Arc<Sampled>,
    refused: Arc<Sampled>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything: `API_TOKEN`.
    Operate,
    /// Read: `API_READ_TOKEN`.
    Read,
}

/// What sessions of one token are signed with: taking the token out of the settings ends them.
#[derive(Clone, Copy)]
pub(crate) struct SessionKey([u8; 32]);

impl SessionKey {
    fn of(token: &TokenDigest) -> Self {
        Self(mac(token, b"clawback: sessions of the pages under /ui/"))
    }

    /// The signature of `text`.
    pub(crate) fn sign(&self, text: &str) -> [u8; 32] {
        mac(&self.0, text.as_bytes())
    }
}

impl Tokens {
    /// `operate` (`API_TOKEN`) may do everything, `read` (`API_READ_TOKEN`) may only read. Without both, the API is off.
    #[must_use]
    pub fn new(operate: Option<&SecretList>, read: Option<&SecretList>) -> Self {
        let digested = |tokens: Option<&SecretList>| {
            tokens.into_iter().flat_map(SecretList::iter).map(|token| digest(token.expose_secret())).collect()
        };
        let (operate, read) = (digested(operate), digested(read));
        Self { operate, read, limits: Arc::new(Limits::new()), failed_logins: Arc::default(), refused: Arc::default() }
    }

    /// Whether there is a token at all. Without one, the API and the pages are off.
    pub(crate) fn are_configured(&self) -> bool {
        !self.operate.is_empty() || !self.read.is_empty()
    }

    /// What `token` may do, and the key of its sessions.
    ///
    /// # Errors
    /// 401, or 429 when the address has guessed too often.
    pub(crate) fn log_in(&self, token: &str, peer: Option<IpAddr>) -> Result<(Rights, SessionKey), Problem> {
        let given = digest(token);
        if let Some(rights) = self.rights(&given) {
            return Ok((rights, SessionKey::of(&given)));
        }
        if let Some(more) = self.failed_logins.occurred(Instant::now()) {
            tracing::warn!(peer = ?peer, more, "a login to /ui/ was refused: no valid token");
        }
        self.limits.count_refused(peer)?;
        Err(Problem::unauthorized("this is not one of the server's tokens: API_TOKEN, or API_READ_TOKEN to look only"))
    }

    /// The key of each token's sessions, with what the token may do.
    pub(crate) fn session_keys(&self) -> impl Iterator<Item = (Rights, SessionKey)> {
        let operate = self.operate.iter().map(|token| (Rights::Operate, SessionKey::of(token)));
        operate.chain(self.read.iter().map(|token| (Rights::Read, SessionKey::of(token))))
    }

    /// Counts a request of a token, or of a session of it.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn count(&self, rights: Rights) -> Result<(), Problem> {
        match rights {
            Rights::Operate => self.limits.count_operate(),
            Rights::Read => self.limits.count_read(),
        }
    }

    fn rights(&self, given: &TokenDigest) -> Option<Rights> {
        let fits = |tokens: &[TokenDigest]| {
            bool::from(tokens.iter().fold(Choice::from(0), |any, token| any | token.ct_eq(given)))
        };
        match (fits(&self.operate), fits(&self.read)) {
            (true, _) => Some(Rights::Operate),
            (false, true) => Some(Rights::Read),
            (false, false) => None,
        }
    }

    fn check(&self, method: &Method, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<(), Problem> {
        if !self.are_configured() {
            return Err(Problem::new(Kind::SwitchedOff, Kind::SwitchedOff.row().when));
        }
        let Some(token) = bearer(headers) else {
            return Err(self.refuse(peer, "send `Authorization: Bearer $API_TOKEN`"));
        };
        match self.rights(&digest(token)) {
            Some(Rights::Read) if !method.is_safe() => Err(Problem::new(Kind::Forbidden, Kind::Forbidden.row().when)),
            Some(rights) => self.count(rights),
            None => Err(self.refuse(peer, Kind::Unauthorized.row().when)),
        }
    }

    fn refuse(&self, peer: Option<IpAddr>, why: &str) -> Problem {
        if let Err(too_many) = self.limits.count_refused(peer) {
            return too_many;
        }
        if let Some(more) = self.refused.occurred(Instant::now()) {
            tracing::warn!(peer = ?peer, why, more, "request refused: no valid token");
        }
        Problem::unauthorized(why)
    }
}

/// Passes the request on, or answers 401, 403, 429, or 404 while no token is configured.
pub(super) async fn require(State(tokens): State<Tokens>, request: Request, next: Next) -> Result<Response, Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    tokens.check(request.method(), request.headers(), peer)?;
    Ok(next.run(request).await)
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

fn mac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    // HMAC itself fills a key up with zeros to the length of a block.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The scheme is case-insensitive (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::*;
    use crate::http::sampled::captured_log;

    fn status(operate: Option<&str>, read: Option<&str>, method: &Method, authorization: Option<&str>) -> StatusCode {
        let [operate, read] = [operate, read].map(|tokens| tokens.map(|tokens| tokens.parse::<SecretList>().unwrap()));
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        match Tokens::new(operate.as_ref(), read.as_ref()).check(method, &headers, None) {
            Ok(()) => StatusCode::OK,
            Err(problem) => problem.into_response().status(),
        }
    }

    #[test]
    fn each_token_opens_what_it_may_and_nothing_else() {
        let (get, post) = (&Method::GET, &Method::POST);
        for (method, authorization, expected) in [
            (get, "Bearer all", 200),
            (post, "Bearer all", 200),
            (get, "Bearer read", 200),
            (&Method::HEAD, "Bearer read", 200),
            (post, "Bearer read", 403),
            (&Method::DELETE, "Bearer read", 403),
            (get, "bearer read", 200),
            (get, "Bearer  read", 200),
            (get, "Bearer rea", 401),
            (get, "Bearer readx", 401),
            (get, "Bearer READ", 401),
            (get, "Bearer", 401),
            (get, "Bearer ", 401),
            (get, "Basic all", 401),
            (get, "all", 401),
        ] {
            assert_eq!(
                status(Some("all"), Some("read"), method, Some(authorization)),
                expected,
                "{method} {authorization}"
            );
        }
        assert_eq!(status(Some("all"), Some("read"), get, None), 401);
    }

    #[test]
    fn each_token_of_a_list_opens_the_same() {
        let (get, post) = (&Method::GET, &Method::POST);
        for token in ["new", "old"] {
            assert_eq!(status(Some("new,old"), Some("r1,r2"), post, Some(&format!("Bearer {token}"))), 200);
        }
        for token in ["r1", "r2"] {
            assert_eq!(status(Some("new,old"), Some("r1,r2"), get, Some(&format!("Bearer {token}"))), 200);
            assert_eq!(status(Some("new,old"), Some("r1,r2"), post, Some(&format!("Bearer {token}"))), 403);
        }
        assert_eq!(status(Some("new,old"), Some("r1,r2"), get, Some("Bearer new,old")), 401);
    }

    #[test]
    fn one_token_alone_is_enough_to_turn_the_api_on() {
        assert_eq!(status(Some("all"), None, &Method::POST, Some("Bearer all")), 200);
        assert_eq!(status(None, Some("read"), &Method::GET, Some("Bearer read")), 200);
        assert_eq!(status(None, Some("read"), &Method::POST, Some("Bearer read")), 403);
    }

    #[test]
    fn without_any_token_the_api_is_not_there_whatever_is_sent() {
        assert_eq!(status(None, None, &Method::GET, None), 404);
        assert_eq!(status(None, None, &Method::GET, Some("Bearer ")), 404);
    }

    #[test]
    fn a_401_tells_which_scheme_is_wanted() {
        let problem = Tokens::new(Some(&SecretList::from("all")), None).check(&Method::GET, &HeaderMap::new(), None);
        let response = problem.unwrap_err().into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"clawback\"");
    }

    #[test]
    fn refusals_are_counted_in_the_log_and_not_repeated() {
        let (log, _until_the_end) = captured_log();
        let tokens = Tokens::new(Some(&SecretList::from("all")), None);
        for _ in 0..5 {
            tokens.check(&Method::GET, &HeaderMap::new(), None).unwrap_err();
        }
        assert_eq!(log.text().matches("request refused: no valid token").count(), 1, "{}", log.text());
    }
}
