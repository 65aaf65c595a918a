//! The door for hands and compose, and the program itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Caller, Got, got};

async fn door(caller: &Caller, method: Method, path: &str, body: Value) -> Got {
    got(caller.request(method, &format!("/_sim/{path}")).json(&body).send().await.unwrap()).await
}

#[tokio::test]
async fn everything_that_hands_need_is_behind_the_door() {
    let caller = Caller::new();
    let new = json!({"id": "tr_2", "amount": 500, "currency": "usd", "destination": "acct_2"});
    assert_eq!(door(&caller, Method::POST, "transfers", new.clone()).await.status, 200);
    let again = door(&caller, Method::POST, "transfers", new).await;
    assert_eq!((again.status, again.body), (400, json!({"error": "id \"tr_2\": there is such a transfer already"})));

    let fault = json!({"transfer": "tr_2", "fault": {"kind": "server_error"}, "times": 1});
    assert_eq!(door(&caller, Method::POST, "faults", fault).await.status, 200);
    let path = "/v1/transfers/tr_2/reversals";
    assert_eq!(caller.post(path, "k", &[("amount", "1")]).await.status, 500);

    let fault = json!({"fault": {"kind": "lock_timeout"}, "on": "reads", "times": 9});
    assert_eq!(door(&caller, Method::POST, "faults", fault).await.status, 200);
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 429);
    assert_eq!(door(&caller, Method::DELETE, "faults", Value::Null).await.status, 200);
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 200);

    door(&caller, Method::POST, "clock", json!({"advance_seconds": 86_400})).await;
    let pruned = caller.post(path, "k", &[("amount", "1")]).await;
    assert_eq!((pruned.status, pruned.header("idempotent-replayed")), (200, None));

    door(&caller, Method::POST, "balances", json!({"account": "acct_2", "amount": 0})).await;
    assert_eq!(caller.post(path, "k2", &[("amount", "1")]).await.error(), "balance_insufficient");

    let ledger = door(&caller, Method::GET, "ledger", Value::Null).await.body;
    assert_eq!(ledger["transfers"]["tr_2"]["reversals"][0]["amount"], 1);
    assert_eq!(ledger["requests"].as_array().unwrap().len(), 5);
    assert_eq!(ledger["requests"][0]["status"], 500);

    door(&caller, Method::POST, "reset", Value::Null).await;
    assert_eq!(caller.get("/v1/transfers/tr_2").await.status, 404);
    assert_eq!(door(&caller, Method::GET, "health", Value::Null).await.body, json!({"status": "ok"}));
}

#[tokio::test]
async fn a_pending_reversal_is_ended_behind_the_door() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", stripe_sim::Fault::Pending, 1);
    let id = caller.reverse("k", "700").await.body["id"].as_str().unwrap().to_owned();
    let path = format!("reversals/{id}/status");
    let wrong = door(&caller, Method::POST, &path, json!({"status": "done"})).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(door(&caller, Method::POST, &path, json!({"status": "canceled"})).await.status, 200);
    assert_eq!(caller.reversed(), 0);
}

#[tokio::test]
async fn the_door_says_what_is_wrong_with_what_it_gets() {
    let caller = Caller::new();
    for (path, body, says) in [
        ("faults", json!({"fault": {"kind": "nonsense"}}), "nonsense"),
        ("faults", json!({"fault": {"kind": "pending"}, "on": "reads"}), "no meaning for reads"),
        ("faults", json!({"fault": {"kind": "pending"}, "transfers": "tr_1"}), "transfers"),
        ("clock", json!({"advance_seconds": -1}), "advance_seconds"),
        ("transfers", json!({"id": "tr_9", "amount": 0, "currency": "eur", "destination": "acct_1"}), "amount 0"),
    ] {
        let got = door(&caller, Method::POST, path, body).await;
        assert!(matches!(got.status, 400 | 422), "{path}: {}", got.status);
        assert!(got.body.to_string().contains(says), "{path}: {}", got.body);
    }
}

#[tokio::test]
async fn what_does_not_happen_in_time_is_reported_with_the_requests_so_far() {
    let caller = Caller::new();
    caller.reverse("k", "700").await;
    let error = caller.sim.wait_for(|_| false, Duration::from_millis(10)).await.unwrap_err().to_string();
    assert!(error.contains("POST /v1/transfers/tr_1/reversals"), "{error}");
}

/// The program, ended when the test is over.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Errors say that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_stripe-sim"))
}

#[test]
fn the_program_has_its_transfers_says_where_it_listens_and_checks_its_health() {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0"]).env("STRIPE_SIM_TRANSFERS", "tr_1:9000:eur:acct_1,tr_2:1:usd:acct_2");
    let mut running = Program(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit_once('/').unwrap().1.to_owned();

    let health = || program().args(["--healthcheck", "--listen", &address]).output().unwrap();
    assert!(health().status.success());
    drop(running);
    let down = health();
    assert_eq!(down.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&down.stderr).contains("the simulator is not well"), "{down:?}");
}

#[test]
fn the_program_refuses_a_transfer_that_is_none_and_an_address_that_is_taken() {
    let refused = program().args(["--listen", "127.0.0.1:0", "--transfer", "tr_1:x:eur:acct_1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("\"x\""), "{refused:?}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = program().args(["--listen", &address]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&address), "{refused:?}");
}
