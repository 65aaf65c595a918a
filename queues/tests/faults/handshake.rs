//! A peer that accepts connections and then says nothing: a broker that hangs, or a load balancer without one behind it.

use crate::support::{PATIENCE, Place, eventually, shared_broker};
use queues::{Broker, ConnectionState, Publisher};
use std::{fs, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// A listener that never answers, and the URL to it.
async fn silence() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, format!("amqp://{address}/?connection_timeout={}", CONNECT_TIMEOUT.as_millis()))
}

/// lapin has a thread for each connection, and for each try.
fn connection_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("threads are counted in /proc, which Linux has");
    let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin-io")).count()
}

/// Reads what the client says first.
async fn greeting(stream: &mut TcpStream) {
    let mut first = [0; 8];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("the client says nothing").unwrap();
    assert_eq!(first, *b"AMQP\0\0\x09\x01");
}

async fn closed_by_the_client(stream: &mut TcpStream) {
    let more = timeout(PATIENCE, stream.read(&mut [0])).await.expect("the socket stays open");
    assert_eq!(more.unwrap(), 0);
}

#[tokio::test]
async fn a_try_to_connect_to_a_silent_peer_ends_in_time_and_leaves_nothing_behind() {
    let (listener, url) = silence().await;
    let place = Place::unconnected(&url);
    let mut before = None;
    for _ in 0..5 {
        let started = Instant::now();
        let trying = async { tokio::join!(place.broker.declare(&place.topology), listener.accept()) };
        let (declared, accepted) = timeout(PATIENCE, trying).await.expect("the try does not end");
        let error = declared.unwrap_err().to_string();
        assert!(error.contains("no answer within 300ms"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let (mut stream, _) = accepted.unwrap();
        greeting(&mut stream).await;
        closed_by_the_client(&mut stream).await;
        // Tests in threads of this process may have connections of their own, but not more and more.
        before.get_or_insert_with(connection_threads);
    }
    let before = before.unwrap();
    eventually("the end of the threads", async || (connection_threads() <= before).then_some(())).await;
}

#[tokio::test]
async fn a_try_that_its_caller_gives_up_is_ended_too() {
    let (listener, url) = silence().await;
    let publisher = Publisher::start(&Broker::new(&url.replace("=300", "=3600000"), "test").unwrap());
    let (mut stream, _) = listener.accept().await.unwrap();
    greeting(&mut stream).await;
    publisher.close().await;
    assert_eq!(*publisher.state().borrow(), ConnectionState::Closed);
    closed_by_the_client(&mut stream).await;
}

#[tokio::test]
async fn a_publisher_that_meets_a_silent_peer_first_works_once_the_broker_answers() {
    let (listener, url) = silence().await;
    let shared = shared_broker();
    Place::run(&shared, &shared, async |place| {
        // The same port, first silent, then the way to the broker.
        let mut through = url::Url::parse(&shared).unwrap();
        through.set_host(Some("127.0.0.1")).unwrap();
        through.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        through.set_query(url::Url::parse(&url).unwrap().query());
        let upstream = url::Url::parse(&shared).unwrap();
        let upstream = format!("{}:{}", upstream.host_str().unwrap(), upstream.port().unwrap_or(5672));
        let forwarding = async {
            let (_silent, _) = listener.accept().await.unwrap();
            let (mut client, _) = listener.accept().await.unwrap();
            let mut broker = TcpStream::connect(upstream).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut broker).await;
        };
        let publisher = Publisher::start(&Broker::new(through.as_str(), place.name()).unwrap());
        let publishing = async {
            publisher.publish(place.job(2)).await.unwrap();
            publisher.close().await;
        };
        tokio::join!(forwarding, publishing);
    })
    .await;
}
