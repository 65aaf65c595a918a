//! One request under `/v1`, from its arrival to its answer: who calls, rate limit, faults, idempotency, execution.
//!
//! The order is the heart of the simulator: what is answered before the key is claimed is not saved, and what an
//! execution ends with is, 400s and 500s included. An execution goes on when its client has gone, as it does at Stripe.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use chrono::{DateTime, Utc};

use crate::auth;
use crate::faults::{Access, Fault};
use crate::idempotency::Known;
use crate::ledger::Request;
use crate::operations::{
    Command, Operation, Params, new_id, platform_short_of_balance, reverse_from_elsewhere, short_of_balance,
};
use crate::refusals::{at_the_door, in_flight, locked, other_parameters, rate_limited, refused};
use crate::shapes::{Answer, ApiError};
use crate::state::{Shared, State};

/// The longest idempotency key that Stripe takes.
const KEY_MAX_CHARS: usize = 255;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// Its `Request-Id`.
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Bytes,
    pub(crate) params: Params,
    pub(crate) key: Option<String>,
    pub(crate) authorization: Option<HeaderValue>,
    /// The connected account that it is for.
    pub(crate) account: Option<String>,
}

/// What goes back.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None: the connection is cut.
    pub(crate) answer: Option<Arc<Answer>>,
    pub(crate) replayed: bool,
    /// By the simulator's clock.
    pub(crate) at: DateTime<Utc>,
    fault: Option<Fault>,
}

impl Call {
    pub(crate) fn new(
        operation: Operation,
        method: &str,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Call {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let params = match operation.access() {
            Access::Writes => Params::parse(&body),
            Access::Reads => Params::parse(query.as_bytes()),
        };
        Call {
            operation,
            id: new_id("req_"),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            body,
            params,
            key: key.map(str::to_owned),
            authorization: headers.get("authorization").cloned(),
            account: headers.get("stripe-account").and_then(|account| account.to_str().ok()).map(str::to_owned),
        }
    }

    /// The key, and the fingerprint of what it stands for; reads have none, whatever they send.
    fn idempotency(&self) -> Option<(&str, u64)> {
        let key = self.key.as_deref().filter(|_| self.operation.access() == Access::Writes)?;
        Some((key, self.params.fingerprint(&self.method, &self.path)))
    }
}

/// Takes a call to its end, whether or not anybody waits for the reply: only a slow execution awaits anything, and that
/// is a task of its own.
pub(crate) async fn exchange(shared: Arc<Shared>, call: Call) -> Reply {
    let slow = match shared.change(|state| start(state, call)) {
        Started::Over(reply) => return reply,
        Started::Slow(slow) => slow,
    };
    let running = tokio::spawn(async move {
        tokio::time::sleep(slow.delay).await;
        shared.change(|state| {
            if let Operation::CreateReversal { transfer } = &slow.call.operation {
                state.locked.remove(transfer);
            }
            let reply = execute(state, &slow.call, slow.command, Some(slow.fault));
            note_late(state, &slow.call, &reply);
            reply
        })
    });
    // An error says that the runtime is shutting down, and nobody reads the reply.
    running.await.unwrap_or_else(|_| reply(None, None, Utc::now()))
}

enum Started {
    Over(Reply),
    Slow(Box<Slow>),
}

struct Slow {
    call: Call,
    command: Command,
    fault: Fault,
    delay: Duration,
}

fn start(state: &mut State, mut call: Call) -> Started {
    let reply = match begin(state, &mut call) {
        Begun::Over(reply) => reply,
        Begun::Execute { command, fault } => match fault {
            Some(ref slow @ (Fault::Slow { delay_ms } | Fault::SlowThenNothing { delay_ms })) => {
                let (fault, delay) = (slow.clone(), Duration::from_millis(delay_ms));
                if let Operation::CreateReversal { transfer } = &call.operation {
                    state.locked.insert(transfer.clone());
                }
                note(state, &call, None);
                return Started::Slow(Box::new(Slow { call, command, fault, delay }));
            }
            fault => execute(state, &call, command, fault),
        },
    };
    note(state, &call, Some(&reply));
    Started::Over(reply)
}

/// Writes the request down; without a reply while it is under way.
fn note(state: &mut State, call: &Call, reply: Option<&Reply>) {
    let replayed = reply.is_some_and(|reply| reply.replayed);
    state.ledger.counts.requests += 1;
    state.ledger.counts.replays += u64::from(replayed);
    if state.log_limit == 0 {
        return;
    }
    let requests = &mut state.ledger.requests;
    if requests.len() >= state.log_limit.saturating_mul(2) {
        requests.drain(..requests.len() - state.log_limit);
    }
    requests.push(Request {
        id: call.id.clone(),
        method: call.method.clone(),
        path: call.path.clone(),
        query: call.query.clone(),
        idempotency_key: call.key.clone(),
        body: String::from_utf8_lossy(&call.body).into_owned(),
        at: state.clock.now(),
        status: reply.and_then(|reply| reply.answer.as_ref()).map(|answer| answer.status),
        dropped: reply.is_some_and(|reply| reply.answer.is_none()),
        replayed,
        fault: reply.and_then(|reply| reply.fault.clone()),
    });
}

fn note_late(state: &mut State, call: &Call, reply: &Reply) {
    // Absent when the log has dropped it, or after a reset while it was under way.
    if let Some(request) = state.ledger.requests.iter_mut().rfind(|request| request.id == call.id) {
        request.status = reply.answer.as_ref().map(|answer| answer.status);
        request.dropped = reply.answer.is_none();
        request.fault.clone_from(&reply.fault);
    }
}

enum Begun {
    Over(Reply),
    Execute { command: Command, fault: Option<Fault> },
}

fn begin(state: &mut State, call: &mut Call) -> Begun {
    let now = state.clock.now();
    let id = call.id.clone();
    let refuse = |error: ApiError, fault| Begun::Over(reply(Some(error.into_answer(&id)), fault, now));
    if let Err(error) = auth::admit(call.authorization.as_ref(), state.api_keys.as_ref()) {
        return refuse(error, None);
    }
    if let Some(account) = call.account.as_deref().filter(|account| !speaks_for(state, &call.operation, account)) {
        let message = format!(
            "The provided key does not have access to account '{account}' (or that account does not exist). Application \
             access may have been revoked."
        );
        return refuse(ApiError::new(403, "invalid_request_error", message).code("account_invalid"), None);
    }
    if state.limiter.as_mut().is_some_and(|limiter| !limiter.admits(now)) {
        return refuse(rate_limited(None), None);
    }
    let idempotency = call.idempotency();
    let known = idempotency.map_or(Known::Fresh, |(key, print)| state.keys.look_up(key, print, now));
    let is_fresh = matches!(known, Known::Fresh);
    let fault = state.faults.take(call.operation.target(), call.operation.access(), !is_fresh);
    if let Some(at_the_door) = fault.as_ref().and_then(|fault| at_the_door(fault, &id)) {
        return Begun::Over(reply(at_the_door, fault, now));
    }
    match known {
        Known::Fresh => {}
        Known::InFlight => return refuse(in_flight(), fault),
        Known::OtherParameters => return refuse(other_parameters(call.key.as_deref().unwrap_or_default()), fault),
        Known::Saved(answer) => {
            let answer = Some(answer).filter(|_| fault != Some(Fault::ApplyThenDropConnection));
            return Begun::Over(Reply { replayed: answer.is_some(), answer, at: now, fault });
        }
    }
    if matches!(&call.operation, Operation::CreateReversal { transfer } if state.locked.contains(transfer)) {
        return refuse(locked(), fault);
    }
    if call.key.as_ref().is_some_and(|key| key.chars().count() > KEY_MAX_CHARS) {
        let message = format!("Keys for idempotent requests can only be up to {KEY_MAX_CHARS} characters long.");
        return refuse(ApiError::invalid(message), fault);
    }
    let url = || format!("{}: {}", call.method, call.path);
    match call.operation.command(call.params.clone(), url) {
        Err(error) => refuse(error, fault),
        Ok(command) => {
            if let Some((key, fingerprint)) = idempotency {
                state.keys.claim(key, fingerprint, now);
            }
            Begun::Execute { command, fault }
        }
    }
}

/// Whether the platform may ask this for a connected account: for its balance, once it has got money here.
fn speaks_for(state: &State, operation: &Operation, account: &str) -> bool {
    let ledger = &state.ledger;
    let is_known = ledger.balances.contains_key(account)
        || ledger.transfers.values().any(|transfer| transfer.destination == account);
    matches!(operation, Operation::GetBalance { .. }) && is_known
}

/// Carries the command out as the fault wants it, and saves the answer for the key.
fn execute(state: &mut State, call: &Call, command: Command, fault: Option<Fault>) -> Reply {
    let target = call.operation.target();
    let key = call.key.as_deref().filter(|_| call.operation.access() == Access::Writes);
    let status = match &fault {
        Some(Fault::Pending) => Some("pending"),
        Some(Fault::Failed) => Some("failed"),
        _ => None,
    };
    let result = match &fault {
        Some(Fault::SlowThenNothing { .. } | Fault::Garbage200 { applied: false }) => None,
        Some(fault @ Fault::Refused { .. }) => refused(fault).map(Err),
        Some(Fault::ServerError) => Some(Err(ApiError::server_error())),
        Some(Fault::BalanceInsufficient) => {
            let reversed = target.and_then(|id| state.ledger.transfers.get(id));
            let short = reversed.map(|transfer| short_of_balance(&transfer.destination));
            Some(Err(short.unwrap_or_else(platform_short_of_balance)))
        }
        Some(Fault::ServerErrorApplied) => {
            // What it would have answered is lost, as it is at Stripe.
            let _ = command.execute(state, key, status);
            Some(Err(ApiError::server_error()))
        }
        Some(Fault::AlreadyReversedElsewhere { amount }) => {
            reverse_from_elsewhere(state, target.unwrap_or_default(), *amount, None);
            Some(command.execute(state, key, status))
        }
        _ => Some(command.execute(state, key, status)),
    };
    let real = result.map(|result| {
        Arc::new(match result {
            Ok(value) => Answer::json(200, &value, &call.id),
            Err(error) => error.into_answer(&call.id),
        })
    });
    if let Some(key) = key {
        match &real {
            Some(answer) => state.keys.save(key, Arc::clone(answer)),
            None => state.keys.release(key),
        }
    }
    let at = state.clock.now();
    match &fault {
        Some(Fault::Garbage200 { .. }) => reply(Some(Answer::html(200, "Welcome", &call.id)), fault, at),
        Some(Fault::ApplyThenDropConnection) => reply(None, fault, at),
        _ => Reply { answer: real, replayed: false, at, fault },
    }
}

fn reply(answer: Option<Answer>, fault: Option<Fault>, at: DateTime<Utc>) -> Reply {
    Reply { answer: answer.map(Arc::new), replayed: false, at, fault }
}
