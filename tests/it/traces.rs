//! Traces of a real process, taken in by a listener in the test as a collector would.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Backend, Process, TestApp, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_and_its_job_are_exported_as_one_trace_at_the_latest_when_the_process_stops() {
    TestApp::run(Backend::Sqlite, async |mut app| {
        app.stop().await;
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut settings = app.settings();
        settings.retain(|(name, _)| name != "HTTP_ADDR");
        settings.push(("HTTP_ADDR".into(), free.to_string()));
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        settings.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint));
        let process = Process::start_filtered("run", &settings, "info");
        app.base_url = format!("http://{free}");
        eventually("it answers", || async { app.http.get(format!("{}/health/live", app.base_url)).send().await.ok() })
            .await;
        app.refund(10_000).await;
        app.transfer_becomes(0, "reversed").await;
        app.transfer_becomes(1, "reversed").await;

        let collecting = tokio::spawn(async move {
            let mut taken = Vec::new();
            while trace_ids(&taken, "call").is_empty() || !contains(&taken, "/webhooks/stripe") {
                let (stream, _) = collector.accept().await.unwrap();
                taken.extend(take(stream).await);
            }
            taken
        });
        assert_eq!(process.terminate().await, Some(0));
        let collected = tokio::time::timeout(Duration::from_secs(60), collecting).await;
        let taken = collected.expect("the spans never came").unwrap();
        for word in ["service.name", "clawback", "call_id", "request_id"] {
            assert!(contains(&taken, word), "no span says {word}");
        }
        // The job is part of its webhook's trace.
        let (requests, jobs) = (trace_ids(&taken, "request"), trace_ids(&taken, "call"));
        assert!(jobs.is_subset(&requests), "{jobs:?} {requests:?}");
    })
    .await;
}

/// The trace ids of the spans with this name. In OTLP's protobuf a span begins with its trace id (field 1), its own id (2) and
/// its parent's (4, if it has one), and then comes its name (5).
fn trace_ids(bytes: &[u8], name: &str) -> BTreeSet<[u8; 16]> {
    let field: Vec<u8> = [&[0x2a, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    let named = bytes.windows(field.len()).enumerate().filter(|(_, window)| *window == field).map(|(at, _)| at);
    named
        .filter_map(|at| {
            let start = [at.checked_sub(38), at.checked_sub(28)].into_iter().flatten();
            let start = start.into_iter().find(|start| bytes[*start..].starts_with(&[0x0a, 16]))?;
            bytes[start + 2..start + 18].try_into().ok()
        })
        .collect()
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
