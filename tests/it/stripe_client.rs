//! The Stripe client against the simulator, over real connections; and against servers that are not Stripe at all.
//!
//! Each test has its own simulator, so all run at once. The classification has its own table tests beside it; here it
//! is shown that what happens on the wire arrives at it.

use std::io::Read;
use std::net::TcpListener as BlockingListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clawback::stripe::{
    API_VERSION, Client, ClientError, CreateTransfer, Meaning, Report, ReverseTransfer, TransferReversal,
};
use futures_util::FutureExt;
use secrecy::SecretString;
use stripe_sim::{Fault, Sim, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

const API_KEY: &str = "sk_test_thesecretpart";
const TIMEOUT: Duration = Duration::from_secs(10);

fn client_of(base: &str) -> Client {
    Client::new(base.parse().unwrap(), SecretString::from(API_KEY), None).unwrap()
}

/// A simulator with the transfer `tr_1` of 9,000, and a client of it.
fn simulated() -> (Sim, Client) {
    let sim = Sim::start();
    sim.add_transfer("tr_1", 9_000, "eur", "acct_1");
    let client = client_of(&sim.base_url());
    (sim, client)
}

fn command(amount: i64) -> ReverseTransfer {
    ReverseTransfer {
        refund_application_fee: false,
        transfer_id: "tr_1".to_owned(),
        amount,
        currency: "eur".to_owned(),
        claim: format!("stripe:{}", Uuid::now_v7()),
        generation: 0,
    }
}

fn creation(payment_ref: &str) -> CreateTransfer {
    CreateTransfer {
        name: format!("{payment_ref}:{}", Uuid::now_v7()),
        payment_ref: payment_ref.to_owned(),
        payment_currency: "eur".to_owned(),
        amount: 500,
        currency: "eur".to_owned(),
        destination: "acct_2".to_owned(),
        generation: 0,
    }
}

fn reversed_id(report: &Report) -> &str {
    match &report.meaning {
        Meaning::Reversed { reversal_id, .. } => reversal_id,
        other => panic!("not reversed but {other:?}: {report:?}"),
    }
}

#[tokio::test]
async fn a_reversal_arrives_at_stripe_with_its_amount_its_key_and_its_metadata() {
    let (sim, client) = simulated();
    let command = command(700);
    let report = client.reverse_transfer(&command).await;

    let ledger = sim.ledger();
    let [reversal] = ledger.reversals("tr_1") else { panic!("{ledger:?}") };
    assert_eq!((reversed_id(&report), report.http_status), (reversal.id.as_str(), Some(200)));
    assert_eq!(report.request_id, Some(ledger.requests[0].id.clone()));
    assert_eq!(reversal.amount, 700);
    assert_eq!(reversal.idempotency_key, Some(command.idempotency_key()));
    assert_eq!(reversal.metadata["clawback_claim"], command.claim);
}

#[tokio::test]
async fn two_attempts_of_one_generation_are_equal_byte_for_byte_and_reverse_once() {
    let (sim, client) = simulated();
    let command = command(700);
    sim.fault("tr_1", Fault::ApplyThenDropConnection, 1);
    let lost = client.reverse_transfer(&command).await;
    assert_eq!((lost.meaning, lost.http_status), (Meaning::Unreached, None));
    let second = client.reverse_transfer(&command).await;

    assert!(second.replayed);
    let ledger = sim.ledger();
    assert_eq!(ledger.reversals("tr_1").len(), 1);
    assert_eq!(reversed_id(&second), ledger.reversals("tr_1")[0].id);
    let posts: Vec<_> = ledger.reversal_posts("tr_1").collect();
    assert_eq!(posts.len(), 2);
    assert_eq!((&posts[0].body, &posts[0].idempotency_key), (&posts[1].body, &posts[1].idempotency_key));
    assert_eq!((posts[0].dropped, posts[1].replayed), (true, true));
}

#[tokio::test]
async fn each_way_of_failing_arrives_as_its_meaning_and_reverses_only_where_it_says_so() {
    let pending = |meaning: &Meaning| matches!(meaning, Meaning::Pending { .. });
    type Row = (Fault, fn(&Meaning) -> bool, usize);
    let rows: Vec<Row> = vec![
        (Fault::ApplyThenDropConnection, |meaning| *meaning == Meaning::Unreached, 1),
        (Fault::DropBeforeApply, |meaning| *meaning == Meaning::Unreached, 0),
        (Fault::ServerError, |meaning| *meaning == Meaning::ServerError, 0),
        (Fault::ServerErrorApplied, |meaning| *meaning == Meaning::ServerError, 1),
        (Fault::Conflict409, |meaning| *meaning == Meaning::KeyInUse, 0),
        (Fault::RateLimited { retry_after: Some(3) }, |meaning| *meaning == Meaning::RateLimited, 0),
        (Fault::LockTimeout, |meaning| *meaning == Meaning::Locked, 0),
        (Fault::UnavailableHtml, |meaning| *meaning == Meaning::Unavailable, 0),
        (Fault::BadGateway, |meaning| *meaning == Meaning::Unavailable, 0),
        (Fault::SlowThenNothing { delay_ms: 1 }, |meaning| *meaning == Meaning::Unreached, 0),
        (Fault::Slow { delay_ms: 1 }, |meaning| matches!(meaning, Meaning::Reversed { .. }), 1),
        (Fault::BalanceInsufficient, |meaning| *meaning == Meaning::BalanceInsufficient, 0),
        (Fault::Unauthorized, |meaning| *meaning == Meaning::Denied, 0),
        (Fault::PermissionDenied, |meaning| *meaning == Meaning::Denied, 0),
        (Fault::Pending, pending, 1),
        (Fault::Failed, |meaning| *meaning == Meaning::Ended { status: "failed".to_owned() }, 0),
        (Fault::Garbage200 { applied: true }, |meaning| *meaning == Meaning::Unreadable, 1),
        (Fault::Garbage200 { applied: false }, |meaning| *meaning == Meaning::Unreadable, 0),
        (Fault::AlreadyReversedElsewhere { amount: None }, |meaning| *meaning == Meaning::AlreadyReversed, 1),
        (Fault::AlreadyReversedElsewhere { amount: Some(8_500) }, |meaning| *meaning == Meaning::MoreThanLeft, 1),
    ];
    for (fault, is_expected, effects) in rows {
        let (sim, client) = simulated();
        sim.fault("tr_1", fault.clone(), 1);
        let report = client.reverse_transfer(&command(700)).await;
        assert!(is_expected(&report.meaning), "{fault:?}: {report:?}");
        let ledger = sim.ledger();
        let counted = ledger.reversals("tr_1").iter().filter(|reversal| reversal.counts()).count();
        assert_eq!(counted, effects, "{fault:?}: {:?}", ledger.reversals("tr_1"));
        if report.http_status.is_some() {
            assert_eq!(report.request_id, Some(ledger.requests[0].id.clone()), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn the_refusals_that_need_no_fault_arrive_as_their_meanings() {
    let (sim, client) = simulated();
    let unknown = ReverseTransfer { transfer_id: "tr_unknown".to_owned(), ..command(700) };
    let report = client.reverse_transfer(&unknown).await;
    assert_eq!((report.meaning, report.code.as_deref()), (Meaning::NoSuchTransfer, Some("resource_missing")));

    assert_eq!(client.reverse_transfer(&command(0)).await.meaning, Meaning::Rejected);
    assert_eq!(client.reverse_transfer(&command(9_001)).await.meaning, Meaning::MoreThanLeft);

    let first = command(700);
    reversed_id(&client.reverse_transfer(&first).await);
    let other_amount = ReverseTransfer { amount: 800, ..first.clone() };
    assert_eq!(client.reverse_transfer(&other_amount).await.meaning, Meaning::KeyMisused);

    let wrong_currency = ReverseTransfer { currency: "usd".to_owned(), ..command(100) };
    assert_eq!(client.reverse_transfer(&wrong_currency).await.meaning, Meaning::Unreadable);

    sim.set_balance("acct_1", Some(99));
    assert_eq!(client.reverse_transfer(&command(100)).await.meaning, Meaning::BalanceInsufficient);
    sim.set_balance("acct_1", None);

    reversed_id(&client.reverse_transfer(&command(8_200)).await);
    assert_eq!(client.reverse_transfer(&command(1)).await.meaning, Meaning::AlreadyReversed);
}

#[tokio::test]
async fn a_saved_500_is_replayed_for_a_day_and_a_pruned_key_reverses_again() {
    let (sim, client) = simulated();
    let command = command(700);
    sim.fault("tr_1", Fault::ServerErrorApplied, 1);
    assert!(!client.reverse_transfer(&command).await.replayed);
    let replay = client.reverse_transfer(&command).await;
    assert_eq!((replay.meaning, replay.replayed), (Meaning::ServerError, true));

    sim.advance(Duration::from_secs(24 * 3_600));
    reversed_id(&client.reverse_transfer(&command).await);
    assert_eq!(
        sim.ledger().reversals("tr_1").len(),
        2,
        "this is what generations and reconciliation are there to prevent"
    );
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_stripe_finishes_it_all_the_same() {
    let (sim, client) = simulated();
    let impatient = client.clone().with_timeout(Duration::from_millis(400));
    let command = command(700);
    sim.fault("tr_1", Fault::Slow { delay_ms: 2_000 }, 1);
    let report = impatient.reverse_transfer(&command).await;
    assert_eq!((&report.meaning, report.http_status), (&Meaning::Unreached, None), "{report:?}");
    assert_eq!(client.reverse_transfer(&command).await.meaning, Meaning::KeyInUse);

    sim.wait_for(|ledger| ledger.reversals("tr_1").len() == 1, TIMEOUT).await.unwrap();
    let replay = client.reverse_transfer(&command).await;
    assert!(replay.replayed && matches!(replay.meaning, Meaning::Reversed { .. }), "{replay:?}");
    assert_eq!(sim.ledger().reversals("tr_1").len(), 1);
}

#[tokio::test]
async fn a_transfer_is_read_with_what_has_been_reversed_of_it() {
    let (_sim, client) = simulated();
    reversed_id(&client.reverse_transfer(&command(700)).await);
    let transfer = client.get_transfer("tr_1").await.unwrap();
    assert_eq!((transfer.amount, transfer.amount_reversed, transfer.reversed), (9_000, 700, false));
    assert_eq!((transfer.currency.as_str(), transfer.destination.as_deref()), ("eur", Some("acct_1")));
}

#[tokio::test]
async fn reversals_are_listed_over_all_pages() {
    let (sim, client) = simulated();
    let mut claims = Vec::new();
    for _ in 0..250 {
        let command = command(1);
        reversed_id(&client.reverse_transfer(&command).await);
        claims.push(Some(command.claim));
    }
    let reversals = client.list_reversals("tr_1").await.unwrap().items;
    let listed: Vec<_> = reversals.iter().rev().map(TransferReversal::claim).collect();
    assert_eq!(listed, claims.iter().map(Option::as_deref).collect::<Vec<_>>());
    let pages = || sim.ledger().requests.iter().filter(|request| request.method == "GET").count();
    assert_eq!(pages(), 3);

    // Each page in a turn of its own, and none after the one with what is looked for.
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let paced = client.paced(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(()).boxed()
    });
    paced.get_transfer("tr_1").await.unwrap();
    assert_eq!(paced.list_reversals("tr_1").await.unwrap().items.len(), 250);
    assert_eq!((turns.load(Ordering::Relaxed), pages()), (4, 7));
    let second_page = claims[100].as_deref();
    let found = paced.list_reversals_until("tr_1", |reversal| reversal.claim() == second_page).await.unwrap();
    assert!(found.items.iter().any(|reversal| reversal.claim() == second_page));
    assert_eq!((found.items.len(), turns.load(Ordering::Relaxed), pages()), (200, 6, 9));
}

#[tokio::test]
async fn a_page_of_full_metadata_and_one_with_none_at_all_are_read() {
    let metadata: serde_json::Map<_, _> = (0..50).map(|n| (format!("key_{n:036}"), "x".repeat(500).into())).collect();
    let reversal = |n: usize, metadata: serde_json::Value| serde_json::json!({"id": format!("trr_{n}"), "amount": 1, "currency": "eur", "transfer": "tr_1", "metadata": metadata});
    let full = (0..99).map(|n| reversal(n, metadata.clone().into()));
    let page = full.chain([reversal(99, serde_json::Value::Null)]).collect::<Vec<_>>();
    let body = serde_json::json!({"object": "list", "data": page, "has_more": false}).to_string();
    assert!(body.len() > 2 * 1024 * 1024, "{} bytes", body.len());
    let (_head, base) = one_answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let listed = client_of(&base).list_reversals("tr_1").await.unwrap().items;
    assert_eq!((listed.len(), listed[99].claim()), (100, None));
}

#[tokio::test]
async fn what_a_creation_may_have_made_is_listed_over_all_pages() {
    let (sim, client) = simulated();
    for payment_ref in ["pi_1", "ch_1"] {
        let command = creation(payment_ref);
        let mut made = Vec::new();
        for generation in 0..150 {
            let report = client.create_transfer(&CreateTransfer { generation, ..command.clone() }).await;
            let Meaning::Created { transfer_id } = report.meaning else { panic!("not created: {report:?}") };
            made.push(transfer_id);
        }
        let before = chrono::Utc::now() - chrono::TimeDelta::hours(1);
        let listed = client.list_transfers(&command, Some(before)).await.unwrap().items;
        let ours: Vec<_> =
            listed.iter().filter(|of| of.name() == Some((&command.payment_ref, &command.name))).collect();
        assert_eq!(ours.len(), 150, "{payment_ref}");
        assert!(made.iter().all(|id| ours.iter().any(|of| of.id == *id)), "{payment_ref}");
        let later = chrono::Utc::now() + chrono::TimeDelta::hours(1);
        assert_eq!(client.list_transfers(&command, Some(later)).await.unwrap().items, []);
    }
    sim.fault_reads(Target::Any, Fault::BadGateway, 1);
    let failed = client.list_transfers(&creation("pi_1"), None).await.unwrap_err();
    assert_eq!(failed.meaning, Meaning::Unavailable, "an incomplete list would look like an absent transfer");
}

#[tokio::test]
async fn a_creation_is_answered_once_for_a_key_and_its_refusals_arrive_as_their_meanings() {
    let (sim, client) = simulated();
    let command = creation("pi_1");
    sim.fault("acct_2", Fault::ApplyThenDropConnection, 1);
    assert_eq!(client.create_transfer(&command).await.meaning, Meaning::Unreached);
    let second = client.create_transfer(&command).await;
    assert!(matches!(second.meaning, Meaning::Created { .. }) && second.replayed, "{second:?}");
    let ledger = sim.ledger();
    let [first, again] = &ledger.requests[..] else { panic!("{:?}", ledger.requests) };
    assert_eq!((&first.body, &first.idempotency_key), (&again.body, &again.idempotency_key));
    assert_eq!(ledger.transfers_to("acct_2").len(), 1);

    let other_amount = CreateTransfer { amount: 1, ..command };
    assert_eq!(client.create_transfer(&other_amount).await.meaning, Meaning::KeyMisused);
    let nobody = CreateTransfer { destination: "nobody".to_owned(), ..creation("pi_1") };
    assert_eq!(client.create_transfer(&nobody).await.meaning, Meaning::NoSuchAccount);
    let nothing = CreateTransfer { amount: 0, ..creation("pi_1") };
    assert_eq!(client.create_transfer(&nothing).await.meaning, Meaning::Rejected);
    sim.set_balance(stripe_sim::PLATFORM, Some(0));
    assert_eq!(client.create_transfer(&creation("pi_1")).await.meaning, Meaning::BalanceInsufficient);
    assert!(client.ping().await.is_ok());
    sim.allow_keys(["sk_test_another"]);
    assert_eq!(client.ping().await.unwrap_err().meaning, Meaning::Denied);
}

#[tokio::test]
async fn a_list_with_a_failing_page_is_a_failure_and_never_a_shorter_list() {
    let (sim, client) = simulated();
    for _ in 0..101 {
        reversed_id(&client.reverse_transfer(&command(1)).await);
    }
    // The first page passes, as `Slow`, and the second fails.
    sim.fault_reads("tr_1", Fault::Slow { delay_ms: 0 }, 1);
    sim.fault_reads("tr_1", Fault::ServerError, 1);
    assert_eq!(client.list_reversals("tr_1").await.unwrap_err().meaning, Meaning::ServerError);
}

#[tokio::test]
async fn a_read_that_fails_says_why() {
    let (sim, client) = simulated();
    assert_eq!(client.get_transfer("tr_2").await.unwrap_err().meaning, Meaning::NoSuchTransfer);
    assert_eq!(client.list_reversals("tr_2").await.unwrap_err().meaning, Meaning::NoSuchTransfer);
    for (fault, meaning) in [
        (Fault::RateLimited { retry_after: None }, Meaning::RateLimited),
        (Fault::DropBeforeApply, Meaning::Unreached),
        (Fault::UnavailableHtml, Meaning::Unavailable),
        (Fault::Garbage200 { applied: false }, Meaning::Unreadable),
        (Fault::Unauthorized, Meaning::Denied),
    ] {
        sim.fault_reads(Target::Any, fault.clone(), 1);
        assert_eq!(client.get_transfer("tr_1").await.unwrap_err().meaning, meaning, "{fault:?}");
    }
}

#[tokio::test]
async fn an_id_cannot_lead_to_another_path() {
    let (sim, client) = simulated();
    let report = client.get_transfer("tr_1/reversals?limit=1#x").await.unwrap_err();
    assert_eq!(report.meaning, Meaning::NoSuchTransfer);
    let request = &sim.ledger().requests[0];
    assert_eq!((request.path.as_str(), request.query.as_str()), ("/v1/transfers/tr_1%2Freversals%3Flimit=1%23x", ""));
}

#[tokio::test]
async fn a_base_with_a_path_keeps_it() {
    let (head, base) = one_answer("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let report = client_of(&format!("{base}/stripe/")).get_transfer("tr_1").await.unwrap_err();
    assert_eq!(report.meaning, Meaning::Unavailable);
    let head = head.await.unwrap();
    assert!(head.starts_with("GET /stripe/v1/transfers/tr_1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("stripe-version: {API_VERSION}\r\n")), "{head}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreached() {
    let port = BlockingListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let report = client_of(&format!("http://127.0.0.1:{port}")).reverse_transfer(&command(1)).await;
    assert_eq!((&report.meaning, report.http_status), (&Meaning::Unreached, None));
    assert!(report.message.contains("refused"), "{}", report.message);
    assert!(!report.message.contains("http://"), "{}", report.message);
}

#[tokio::test]
async fn an_untrusted_certificate_is_a_tls_failure_and_the_key_is_not_sent() {
    let listener = BlockingListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::task::spawn_blocking(move || {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        let handshake = rustls::StreamOwned::new(session, stream).read_to_end(&mut received);
        (handshake.is_err(), received)
    });
    let report = client_of(&format!("https://localhost:{port}")).reverse_transfer(&command(1)).await;
    assert_eq!(report.meaning, Meaning::TlsFailed, "{report:?}");
    assert!(report.message.contains("certificate"), "{}", report.message);
    assert_eq!(server.await.unwrap(), (true, Vec::new()), "the handshake fails before a request is sent");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let (_head, base) = one_answer("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let report = client_of(&base.replace("http://", "https://")).reverse_transfer(&command(1)).await;
    assert_eq!(report.meaning, Meaning::TlsFailed, "{report:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (sim, _) = simulated();
    let to = format!("{}/v1/transfers/tr_1", sim.base_url());
    let redirect = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let (_head, base) = one_answer(redirect).await;
    let report = client_of(&base).get_transfer("tr_1").await.unwrap_err();
    assert_eq!((report.meaning, report.http_status), (Meaning::Unavailable, Some(307)));
    assert!(sim.ledger().requests.is_empty());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unreached_and_one_without_end_is_not_read() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"id\":\"trr_1\"".to_owned();
    let (_head, base) = one_answer(short).await;
    let report = client_of(&base).reverse_transfer(&command(1)).await;
    assert_eq!((report.meaning, report.http_status), (Meaning::Unreached, Some(200)));

    // What it says would do, if it were read to its end.
    let reversal = r#"{"id":"trr_1","amount":1,"currency":"eur","transfer":"tr_1"}"#;
    let body = format!("{reversal}{}", " ".repeat(9 * 1024 * 1024));
    let (_head, base) = one_answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let report = client_of(&base).reverse_transfer(&command(1)).await;
    assert_eq!((report.meaning, report.http_status), (Meaning::Unreadable, Some(200)));
}

#[tokio::test]
async fn a_list_that_repeats_itself_ends_as_unreadable() {
    let reversal = r#"{"id":"trr_1","amount":1,"currency":"eur","transfer":"tr_1"}"#;
    let body = format!(r#"{{"object":"list","data":[{reversal}],"has_more":true}}"#);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            answer_one(&listener, &answer).await;
        }
    });
    let report = client_of(&base).list_reversals("tr_1").await.unwrap_err();
    assert_eq!(report.meaning, Meaning::Unreadable);
    server.abort();
}

#[tokio::test]
async fn the_key_shows_up_nowhere() {
    let (sim, client) = simulated();
    sim.allow_keys(["sk_test_another"]);
    let denied = client.reverse_transfer(&command(1)).await;
    assert_eq!((&denied.meaning, denied.http_status), (&Meaning::Denied, Some(401)));
    let unreached = client_of("http://127.0.0.1:1").get_transfer("tr_1").await.unwrap_err();
    let echo = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{API_KEY}", API_KEY.len());
    let (_head, base) = one_answer(echo).await;
    let echoed = client_of(&base).get_transfer("tr_1").await.unwrap_err();
    let printed = format!("{client:?} {client:#?} {denied:?} {unreached:?} {echoed:?} {:?}", sim.ledger());
    assert!(!printed.contains("thesecretpart"), "{printed}");
}

#[tokio::test]
async fn a_base_or_a_key_that_cannot_work_is_refused_by_name_and_shows_no_secret() {
    let new = |base: &str, key: &str| Client::new(base.parse().unwrap(), SecretString::from(key), None).unwrap_err();
    for (base, problem) in [
        ("ftp://api.stripe.com", "is not an http(s) URL"),
        ("mailto:someone@example.com", "is not an http(s) URL"),
        ("https://me:thesecretpart@api.stripe.com", "carries credentials"),
        ("https://api.stripe.com?key=thesecretpart", "carries a query or a fragment"),
    ] {
        let error = new(base, API_KEY);
        assert!(matches!(error, ClientError::Base { .. }), "{error:?}");
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!format!("{error} {error:?}").contains("thesecretpart"), "{error:?}");
    }
    for key in ["", "sk_test_thesecretpart\n"] {
        let error = new("https://api.stripe.com", key);
        assert!(matches!(error, ClientError::ApiKey(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("thesecretpart"), "{error:?}");
    }
}

/// A server that gives one answer, whatever it is asked: the head of what it was asked, and its base URL.
async fn one_answer(answer: String) -> (tokio::task::JoinHandle<String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    (tokio::spawn(async move { answer_one(&listener, &answer).await }), base)
}

async fn answer_one(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = vec![0; 4_096];
    let read = stream.read(&mut head).await.unwrap();
    // The client may hang up in the middle, as it does on an answer without end.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8_lossy(&head[..read]).into_owned()
}
