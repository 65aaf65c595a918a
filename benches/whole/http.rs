//! The load generator's HTTP client: one keep-alive connection, one request at a time, prebuilt bytes. As lean as it can be, because
//! its CPU time is taken from what it measures.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is kept open.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// # Errors
    /// When nothing listens there.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("can't connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new() })
    }

    /// Posts JSON; `headers` are whole lines.
    ///
    /// # Errors
    /// When the answer is not a 200.
    pub(crate) async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<()> {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.read_answer().await?;
        if !self.answer.starts_with(b"HTTP/1.1 200 ") {
            bail!("POST {path} was answered with {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }

    async fn read_answer(&mut self) -> Result<()> {
        self.answer.clear();
        let mut whole = None;
        while whole.is_none_or(|whole| self.answer.len() < whole) {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the connection was closed before an answer");
            }
            if whole.is_none() {
                whole = answer_length(&self.answer)?;
            }
        }
        Ok(())
    }
}

/// Of head and body together; nothing as long as the head is not complete.
fn answer_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some(head + 4 + length.context("an answer must have a content-length")?))
}
