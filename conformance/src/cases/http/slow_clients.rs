//! Clients that do not send what they promise, or do not read what they asked for.

use std::convert::Infallible;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shim::guest_host::trigger::http::HttpOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Server;
use super::limits::{gated, hasty, next, send_to_the_gate};
use crate::guest::{Program, Subject};
use crate::runner::{Case, cases};

pub(super) fn cases() -> Vec<Case> {
    cases! {
        "http-slow-clients", Program::Rust("http");
        bodies_that_do_not_come_keep_no_place,
        a_connection_full_of_bodies_that_do_not_come_holds_up_nobody,
        a_body_is_not_asked_for_when_too_many_requests_wait,
        bodies_that_wait_for_a_guest_stop_at_their_room,
        answers_that_nobody_reads_stop_at_their_room,
        a_large_answer_that_nobody_reads_ends_its_connection_though_others_are_read,
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// A connection of HTTP/2 whose client takes no more of an answer than its beginning, unless it reads.
async fn connect(server: &Server) -> anyhow::Result<SendRequest<Body>> {
    const BEGINNING: u32 = 1000;
    let stream = TokioIo::new(TcpStream::connect(server.address).await?);
    let mut builder = Builder::new(TokioExecutor::new());
    let (client, connection) = builder.initial_stream_window_size(BEGINNING).handshake(stream).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn hello(server: &Server) -> anyhow::Result<Request<Body>> {
    Ok(server.request(Method::GET, "/").body(Full::default().boxed())?)
}

fn echo(server: &Server, bytes: usize) -> anyhow::Result<Request<Body>> {
    Ok(server.request(Method::POST, "/echo").body(Full::from(vec![b'x'; bytes]).boxed())?)
}

/// A request whose body never comes.
fn promise(server: &Server) -> anyhow::Result<Request<Body>> {
    let nothing = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    Ok(server.request(Method::POST, "/echo").body(nothing.boxed())?)
}

/// A request of HTTP/1.1 that waits for the server to ask for its body.
async fn ask_first(server: &Server) -> anyhow::Result<(TcpStream, String)> {
    const ASKED: usize = "HTTP/1.1 100 Continue\r\n\r\n".len();
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await?;
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; ASKED];
    stream.read_exact(&mut answer).await?;
    Ok((stream, String::from_utf8_lossy(&answer).into_owned()))
}

async fn bodies_that_do_not_come_keep_no_place(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_concurrency: 2, max_queue: 0, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    let mut promised = Vec::new();
    for _ in 0..3 {
        let (stream, answer) = ask_first(&server).await?;
        ensure!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
        promised.push(stream);
    }
    ensure!(server.get("/").await?.status() == StatusCode::OK);
    for stream in &mut promised {
        stream.write_all(b"0123456789").await?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await?;
        ensure!(begin == *b"HTTP/1.1 200", "{begin:?}");
    }
    drop(promised);
    server.stop().await
}

async fn a_connection_full_of_bodies_that_do_not_come_holds_up_nobody(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_concurrency: 2, max_queue: 0, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    let mut client = connect(&server).await?;
    let mut promised = Vec::new();
    for _ in 0..50 {
        promised.push(client.send_request(promise(&server)?));
    }
    // Once it is answered, what was sent before it has come.
    let answer = client.send_request(hello(&server)?).await?;
    ensure!(answer.status() == StatusCode::OK, "on the same connection: {}", answer.status());
    ensure!(server.get("/").await?.status() == StatusCode::OK, "on another");
    drop(promised);
    Ok(())
}

async fn a_body_is_not_asked_for_when_too_many_requests_wait(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_concurrency: 1, max_queue: 0, ..HttpOptions::default() };
    let (server, gate) = gated(&subject, options).await?;
    let mut at_work = send_to_the_gate(&server, 1);
    gate.reached().await?;
    let (_, answer) = ask_first(&server).await?;
    ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    gate.let_through(1);
    ensure!(next(&mut at_work).await? == 200);
    Ok(())
}

async fn bodies_that_wait_for_a_guest_stop_at_their_room(subject: Subject) -> anyhow::Result<()> {
    const BODY: usize = 400 << 10;
    let options =
        HttpOptions { max_concurrency: 1, max_body_size: BODY, max_buffered: 1 << 20, ..HttpOptions::default() };
    let (server, gate) = gated(&subject, options).await?;
    let mut at_work = send_to_the_gate(&server, 1);
    gate.reached().await?;
    let mut client = connect(&server).await?;
    let mut answers = JoinSet::new();
    for _ in 0..5 {
        let answer = client.send_request(echo(&server, BODY)?);
        answers.spawn(async { anyhow::Ok(answer.await?.status().as_u16()) });
    }
    // Two find room, and none would find more.
    for _ in 0..3 {
        ensure!(next(&mut answers).await? == 503);
    }
    gate.let_through(1);
    ensure!(next(&mut at_work).await? == 200);
    for _ in 0..2 {
        ensure!(next(&mut answers).await? == 200);
    }
    Ok(())
}

async fn answers_that_nobody_reads_stop_at_their_room(subject: Subject) -> anyhow::Result<()> {
    const ANSWER: usize = 100 << 10;
    let options = HttpOptions { max_concurrency: 4, max_buffered: 250 << 10, ..HttpOptions::default() };
    let server = Server::start_with(subject.guest()?, options).await?;
    let mut client = connect(&server).await?;
    let mut unread = Vec::new();
    for _ in 0..2 {
        let answer = client.send_request(echo(&server, ANSWER)?).await?;
        ensure!(answer.status() == StatusCode::OK);
        unread.push(answer);
    }
    let mut answers = JoinSet::<hyper::Result<Response<Incoming>>>::new();
    for _ in 0..3 {
        answers.spawn(client.send_request(echo(&server, ANSWER)?));
    }
    let mut next = async || anyhow::Ok(answers.join_next().await.context("three are sent")???);
    // Two wait, with half of the places.
    ensure!(next().await?.status() == StatusCode::INTERNAL_SERVER_ERROR);
    ensure!(server.get("/").await?.status() == StatusCode::OK, "a small answer");
    for given_up in unread {
        drop(given_up);
        ensure!(next().await?.status() == StatusCode::OK);
    }
    Ok(())
}

async fn a_large_answer_that_nobody_reads_ends_its_connection_though_others_are_read(
    subject: Subject,
) -> anyhow::Result<()> {
    let server = Server::start_with(subject.guest()?, hasty()).await?;
    let mut client = connect(&server).await?;
    let unread = client.send_request(echo(&server, 100 << 10)?).await?;
    ensure!(unread.status() == StatusCode::OK);
    while let Ok(answer) = client.send_request(hello(&server)?).await
        && answer.into_body().collect().await.is_ok()
    {}
    server.stop().await
}
