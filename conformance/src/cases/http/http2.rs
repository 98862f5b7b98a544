//! HTTP/2 without TLS, on the same port.

use anyhow::ensure;
use bytes::Bytes;
use http::{Method, StatusCode, Version, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use shim::guest_host::trigger::http::HttpOptions;

use super::{Server, inspected};
use crate::guest::{Guest, Program, Subject};
use crate::runner::{Case, cases};

pub(super) fn cases() -> Vec<Case> {
    cases! {
        "http2", Program::Rust("http");
        both_protocols_are_served_on_one_port,
        a_guest_cannot_tell_which_protocol_it_was,
        the_authority_is_the_host_whatever_the_header_says,
        what_has_no_body_is_answered_without_one,
        streams_of_one_connection_get_their_own_answers,
        limits_are_the_same,
    }
}

impl Server {
    /// A server whose client begins with HTTP/2.
    async fn start_http2(guest: Guest, options: HttpOptions) -> anyhow::Result<Self> {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Ok(Self { client, ..Self::start_with(guest, options).await? })
    }
}

async fn both_protocols_are_served_on_one_port(subject: Subject) -> anyhow::Result<()> {
    let mut server = Server::start_http2(subject.guest()?, HttpOptions::default()).await?;
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let response = server.get("/").await?;
        ensure!(response.version() == version && response.body() == "Hello from WASM!", "{version:?}");
        server.client = Client::builder(TokioExecutor::new()).build_http();
    }
    server.stop().await
}

async fn a_guest_cannot_tell_which_protocol_it_was(subject: Subject) -> anyhow::Result<()> {
    let http2 = Server::start_http2(subject.guest()?, HttpOptions::default()).await?;
    let response = http2.get("/inspect?a=b").await?;
    ensure!(inspected(&response, "uri")? == ["/inspect?a=b"]);
    ensure!(inspected(&response, "header")? == [format!("host: {}", http2.address)]);
    ensure!(response.body().ends_with(b"\nno body\n"));
    let response = http2.send(Method::POST, "/inspect", Bytes::from("body")).await?;
    ensure!(inspected(&response, "body")? == ["4 bytes"]);
    ensure!(http2.get("/status/404").await?.status() == StatusCode::NOT_FOUND);
    http2.stop().await
}

async fn the_authority_is_the_host_whatever_the_header_says(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start_http2(subject.guest()?, HttpOptions::default()).await?;
    let request = server.request(Method::GET, "/inspect").header(header::HOST, "other");
    let response = server.answer(request.body(Full::default())?).await?;
    ensure!(inspected(&response, "header")? == [format!("host: {}", server.address)]);
    server.stop().await
}

/// Whatever the guest answers. A client of HTTP/2 takes a body as an error.
async fn what_has_no_body_is_answered_without_one(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start_http2(subject.guest()?, HttpOptions::default()).await?;
    let head = server.send(Method::HEAD, "/", Bytes::new()).await?;
    ensure!(head.status() == StatusCode::OK && head.body().is_empty());
    ensure!(head.headers().get(header::CONTENT_LENGTH).is_none_or(|length| length == "16"));
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let response = server.get(&format!("/status/{}", status.as_u16())).await?;
        ensure!(response.status() == status && response.body().is_empty());
    }
    server.stop().await
}

async fn streams_of_one_connection_get_their_own_answers(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start_http2(subject.guest()?, HttpOptions::default()).await?;
    server.answers_each_of_many_at_once().await
}

async fn limits_are_the_same(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { max_body_size: 1000, max_header_size: 4096, ..HttpOptions::default() };
    let server = Server::start_http2(subject.guest()?, options).await?;
    let body = Bytes::from(vec![b'x'; 1001]);
    ensure!(server.send(Method::POST, "/echo", body).await?.status() == StatusCode::PAYLOAD_TOO_LARGE);
    let large = server.request(Method::GET, "/").header(header::COOKIE, "x".repeat(10_000));
    let response = server.answer(large.body(Full::default())?).await?;
    ensure!(response.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    ensure!(server.get("/").await?.status() == StatusCode::OK);
    server.stop().await
}
