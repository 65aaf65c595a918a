//! Traces of a real process, taken in by a listener in the test as a collector would.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Backend, Process, TestApp, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_jobs_are_exported_as_spans_and_the_last_ones_when_it_stops() {
    TestApp::run(Backend::Sqlite, async |mut app| {
        app.stop().await;
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut settings = app.settings();
        settings.retain(|(name, _)| name != "HTTP_ADDR");
        settings.push(("HTTP_ADDR".into(), free.to_string()));
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        settings.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint));
        let process = Process::start_logging("run", &settings, "info");
        app.base_url = format!("http://{free}");
        eventually("it answers", || async { app.http.get(format!("{}/health/live", app.base_url)).send().await.ok() })
            .await;
        app.refund(10_000).await;
        app.transfer_becomes(0, "reversed").await;
        app.transfer_becomes(1, "reversed").await;

        let collecting = tokio::spawn(async move {
            let mut taken = Vec::new();
            while !["/webhooks/stripe", "job", "reversal_id", "service.name"].iter().all(|word| contains(&taken, word))
            {
                let (stream, _) = collector.accept().await.unwrap();
                taken.extend(take(stream).await);
            }
        });
        assert_eq!(process.terminate().await, Some(0));
        tokio::time::timeout(Duration::from_secs(60), collecting).await.expect("the spans never came").unwrap();
    })
    .await;
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Reads one request, which must be an export of spans, answers it, and returns its body.
async fn take(mut stream: TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let head_end = loop {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8(request[..head_end].to_vec()).unwrap().to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    while request.len() < head_end + length {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the body broke off");
    }
    let answer =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    request.split_off(head_end)
}
