//! What a server allows: sizes, numbers and times.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use host_abi::http::{HttpClient, HttpError, Request, Response};
use http::{Method, StatusCode, header};
use http_body_util::Full;
use shim::guest_host::trigger::http::HttpOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Server;
use crate::guest::{Program, Subject, wat};
use crate::runner::{Case, cases};

/// Long enough for a machine at its limit to answer something else first, short enough to wait for.
const SHORT: Duration = Duration::from_millis(200);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases! {
        "http-limits", Program::Rust("http");
        a_body_of_the_largest_size_is_served_and_a_larger_one_is_413,
        a_head_that_is_too_large_is_431,
        more_requests_than_may_wait_are_503,
        requests_that_wait_are_answered_in_turn,
        a_client_that_does_not_send_its_body_is_408,
        a_connection_that_never_sends_anything_is_closed,
        a_connection_that_is_idle_after_a_request_is_closed,
        a_connection_is_not_idle_while_its_request_is_served,
        a_client_that_does_not_read_its_answer_is_given_up,
    };
    cases.extend(cases! {
        "http-limits", wat!("handler");
        a_request_that_takes_too_long_is_504_and_others_are_served,
    });
    cases
}

async fn a_body_of_the_largest_size_is_served_and_a_larger_one_is_413(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_body_size: 1000, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    for (bytes, expected) in [(1000, StatusCode::OK), (1001, StatusCode::PAYLOAD_TOO_LARGE)] {
        let body = Bytes::from(vec![b'x'; bytes]);
        ensure!(server.send(Method::POST, "/echo", body.clone()).await?.status() == expected, "{bytes}");
        let chunked = server.request(Method::POST, "/echo").header(header::TRANSFER_ENCODING, "chunked");
        ensure!(server.answer(chunked.body(Full::new(body))?).await?.status() == expected, "{bytes} in chunks");
    }
    server.stop().await
}

async fn a_head_that_is_too_large_is_431(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_header_size: 4096, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    for (bytes, expected) in [(3000, 200), (4096, 431), (100_000, 431), (1_000_000, 431)] {
        let request = server.request(Method::GET, "/").header("x-large", "x".repeat(bytes));
        let response = server.answer(request.body(Full::default())?).await?;
        ensure!(response.status() == expected, "{bytes}: {}", response.status());
    }
    server.stop().await
}

/// An upstream that answers once it is let. Guests that wait for it are requests in flight.
pub(super) struct Gate {
    /// One for each guest that waits, or has waited.
    waiting: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::new(Self { waiting: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// Until one more guest waits.
    pub(super) async fn reached(&self) -> anyhow::Result<()> {
        self.waiting.acquire().await?.forget();
        Ok(())
    }

    pub(super) fn let_through(&self, guests: usize) {
        self.open.add_permits(guests);
    }
}

struct Gated(Arc<Gate>);

#[async_trait]
impl HttpClient for Gated {
    async fn send(&self, _: Request) -> Result<Response, HttpError> {
        self.0.waiting.add_permits(1);
        self.0.open.acquire().await.map_err(|_| HttpError::RuntimeError)?.forget();
        Ok(Response { status: 200, ..Response::default() })
    }
}

const UPSTREAM: &str = "/upstream?url=http://gate/";

pub(super) async fn gated(subject: &Subject, options: HttpOptions) -> anyhow::Result<(Arc<Server>, Arc<Gate>)> {
    let gate = Gate::closed();
    let guest = subject.guest()?.http_client(Gated(Arc::clone(&gate)));
    Ok((Arc::new(Server::start_with(guest, options).await?), gate))
}

/// Sends requests that wait at the gate, if they get there. The answers are their status.
pub(super) fn send_to_the_gate(server: &Arc<Server>, requests: usize) -> JoinSet<anyhow::Result<u16>> {
    let request = |server: Arc<Server>| async move { Ok(server.get(UPSTREAM).await?.status().as_u16()) };
    std::iter::repeat_with(|| request(Arc::clone(server))).take(requests).collect()
}

pub(super) async fn next(answers: &mut JoinSet<anyhow::Result<u16>>) -> anyhow::Result<u16> {
    answers.join_next().await.context("all are answered")??
}

async fn more_requests_than_may_wait_are_503(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_concurrency: 2, max_queue: 3, ..HttpOptions::default() };
    let (server, gate) = gated(&subject, options).await?;
    let mut answers = send_to_the_gate(&server, 9);
    gate.reached().await?;
    gate.reached().await?;
    for _ in 0..4 {
        ensure!(next(&mut answers).await? == 503);
    }
    gate.let_through(5);
    for _ in 0..5 {
        ensure!(next(&mut answers).await? == 200);
    }
    ensure!(server.get("/").await?.status() == StatusCode::OK, "afterwards");
    Ok(())
}

async fn requests_that_wait_are_answered_in_turn(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_concurrency: 1, ..HttpOptions::default() };
    let (server, gate) = gated(&subject, options).await?;
    let mut answers = send_to_the_gate(&server, 20);
    for _ in 0..20 {
        gate.reached().await?;
        ensure!(gate.waiting.available_permits() == 0, "two at the same time");
        gate.let_through(1);
        ensure!(next(&mut answers).await? == 200);
    }
    Ok(())
}

async fn a_request_that_takes_too_long_is_504_and_others_are_served(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { request_timeout: SHORT, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    for _ in 0..3 {
        ensure!(server.get("/loop").await?.status() == StatusCode::GATEWAY_TIMEOUT);
        ensure!(server.get("/memory").await?.body() == "fresh");
    }
    ensure!(server.stderr()? == "GET /loop took longer than 200ms\n".repeat(3), "{}", server.stderr()?);
    server.stop().await
}

/// Everything that a server sends until it closes the connection.
pub(super) async fn sent_until_closed(address: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).await?;
    Ok(String::from_utf8_lossy(&sent).into_owned())
}

async fn a_client_that_does_not_send_its_body_is_408(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { request_timeout: SHORT, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    let request = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    let sent = sent_until_closed(server.address, request).await?;
    ensure!(sent.starts_with("HTTP/1.1 408 "), "{sent}");
    server.stop().await
}

pub(super) fn hasty() -> HttpOptions {
    HttpOptions { idle_timeout: SHORT, ..HttpOptions::default() }
}

async fn a_connection_that_never_sends_anything_is_closed(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start_with(subject.guest()?, hasty()).await?;
    for begun in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nhost:"] {
        let sent = sent_until_closed(server.address, begun).await?;
        ensure!(!sent.starts_with("HTTP/1.1 200"), "{begun:?}: {sent}");
    }
    server.stop().await
}

async fn a_connection_that_is_idle_after_a_request_is_closed(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start_with(subject.guest()?, hasty()).await?;
    let sent = sent_until_closed(server.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    ensure!(sent.ends_with("Hello from WASM!"), "{sent}");
    server.stop().await
}

async fn a_connection_is_not_idle_while_its_request_is_served(subject: Subject) -> anyhow::Result<()> {
    let (server, gate) = gated(&subject, hasty()).await?;
    let mut answers = send_to_the_gate(&server, 1);
    gate.reached().await?;
    // Another connection, opened later, is closed meanwhile.
    sent_until_closed(server.address, "").await?;
    gate.let_through(1);
    ensure!(next(&mut answers).await? == 200);
    Ok(())
}

async fn a_client_that_does_not_read_its_answer_is_given_up(subject: Subject) -> anyhow::Result<()> {
    // More than the two ends of a connection hold between them.
    const MUCH: usize = 12 << 20;
    let server = Server::start_with(subject.guest()?, hasty()).await?;
    let mut stream = TcpStream::connect(server.address).await?;
    stream.write_all(format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {MUCH}\r\n\r\n").as_bytes()).await?;
    stream.write_all(&vec![b'x'; MUCH]).await?;
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await?;
    ensure!(begin == *b"HTTP/1.1 200", "{begin:?}");
    server.stop().await?;
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    ensure!(ended.is_err() || rest.len() < MUCH, "all of it was sent");
    Ok(())
}
