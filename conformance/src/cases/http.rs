//! HTTP guests behind the server that a container has.

mod hosts;
mod http2;
mod limits;
mod reuse;
mod slow_clients;

use std::fs::File;
use std::io::{PipeReader, Read as _, Write as _, pipe};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use host_abi::http::{HttpClient, HttpError};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use shim::guest_host::trigger::http::{HttpOptions, serve};
use shim::guest_host::workers::Workers;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::guest::{Guest, Program, Subject, wat, written};
use crate::runner::{Case, WORKERS, cases};
use crate::store::{Store, StoreKind};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases! {
        "http", Program::Rust("http");
        a_guest_says_hello,
        each_method_reaches_the_guest,
        a_method_that_guests_do_not_know_is_not_implemented,
        head_is_answered_without_a_body,
        the_path_and_the_query_reach_the_guest,
        query_parameters_are_decoded_in_order,
        repeated_headers_keep_their_order,
        headers_of_a_response_keep_their_order,
        a_body_of_nothing_is_no_missing_body,
        bodies_come_back_byte_for_byte,
        a_request_in_chunks_has_a_body,
        a_path_that_is_not_there_is_the_guests_404,
        a_method_that_is_not_allowed_is_the_guests_405,
        any_status_is_the_guests,
        requests_at_once_get_their_own_answers,
        requests_on_one_connection_are_answered_in_turn,
        a_trap_is_500_and_the_next_request_is_served,
        a_trap_is_500_although_nobody_reads_the_output,
        traps_at_once_are_500_each,
        a_handler_reads_and_writes_a_store,
        a_handler_without_its_store_says_so,
        a_handler_makes_requests_itself,
        a_request_to_nowhere_is_an_error_of_the_guest,
    };
    cases.extend(cases! {
        "http", wat!("handler");
        an_instance_never_sees_the_memory_of_another,
        an_exit_is_500_and_the_next_request_is_served,
        a_response_that_is_none_is_500,
        an_endless_loop_holds_up_nobody,
        a_handler_ends_when_its_client_is_gone,
    });
    cases.extend(cases! {
        "http", Program::Rust("greeter");
        the_guest_of_the_tutorial_loses_no_greeting,
    });
    cases.extend(limits::cases());
    cases.extend(slow_clients::cases());
    cases.extend(hosts::cases());
    cases.extend(reuse::cases());
    cases.extend(http2::cases());
    cases
}

/// A guest behind a server on loopback, and a client of it.
pub(super) struct Server {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    stderr: Arc<File>,
}

impl Server {
    pub(super) async fn start(guest: Guest) -> anyhow::Result<Self> {
        Self::start_with(guest, HttpOptions::default()).await
    }

    async fn start_with(guest: Guest, options: HttpOptions) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let (guests, stderr) = guest.into_guests();
        let served = tokio::spawn(serve(listener, guests, options, Workers::start(WORKERS)?, shutdown.clone())?);
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { address, client, shutdown, served, stderr })
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.address))
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let what = format!("{} {}", request.method(), request.uri());
        let (head, body) = self.client.request(request).await.with_context(|| what.clone())?.into_parts();
        let body = body.collect().await.context(what)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    pub(super) async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Bytes>> {
        self.answer(self.request(method, path).body(Full::new(body))?).await
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Response<Bytes>> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Wants each of many requests at once answered with its own body, and stops the server.
    async fn answers_each_of_many_at_once(self) -> anyhow::Result<()> {
        try_join_all((0..100_usize).map(async |index| {
            let body = Bytes::from(index.to_string().repeat(index * 100));
            let response = self.send(Method::POST, "/echo", body.clone()).await?;
            ensure!(*response.body() == body, "request {index} got another's answer");
            Ok(())
        }))
        .await?;
        self.stop().await
    }

    /// What the guests, and the server for them, wrote to standard error.
    fn stderr(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&written(&self.stderr)?).into_owned())
    }

    /// Stops the server, which must end once the requests in flight are answered.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        drop(self.client);
        self.shutdown.cancel();
        Ok(self.served.await?)
    }
}

/// The lines of `/inspect` that begin with a name, without it.
fn inspected<'a>(response: &'a Response<Bytes>, name: &str) -> anyhow::Result<Vec<&'a str>> {
    let text = std::str::from_utf8(response.body())?;
    Ok(text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect())
}

async fn a_guest_says_hello(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let response = server.get("/").await?;
    ensure!(response.status() == StatusCode::OK);
    ensure!(response.headers()[header::CONTENT_TYPE] == "text/plain; charset=utf-8");
    ensure!(response.body() == "Hello from WASM!");
    server.stop().await
}

async fn each_method_reaches_the_guest(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
    for method in methods {
        let response = server.send(method.clone(), "/inspect", Bytes::new()).await?;
        ensure!(response.status() == StatusCode::OK);
        ensure!(inspected(&response, "method")? == [method.as_str()]);
    }
    server.stop().await
}

async fn a_method_that_guests_do_not_know_is_not_implemented(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for method in [Method::TRACE, Method::from_bytes(b"BREW")?] {
        let response = server.send(method, "/inspect", Bytes::new()).await?;
        ensure!(response.status() == StatusCode::NOT_IMPLEMENTED);
    }
    server.stop().await
}

async fn head_is_answered_without_a_body(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let response = server.send(Method::HEAD, "/", Bytes::new()).await?;
    ensure!(response.status() == StatusCode::OK);
    ensure!(response.headers()[header::CONTENT_TYPE] == "text/plain; charset=utf-8");
    ensure!(response.headers().get(header::CONTENT_LENGTH).is_none_or(|length| length == "16"));
    ensure!(response.body().is_empty());
    ensure!(server.get("/").await?.body() == "Hello from WASM!", "on the same connection");
    server.stop().await
}

async fn the_path_and_the_query_reach_the_guest(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for uri in ["/inspect", "/inspect?", "/inspect?a=%20b&c", "/inspect?q=/a/%2F?b"] {
        ensure!(inspected(&server.get(uri).await?, "uri")? == [uri]);
    }
    server.stop().await
}

async fn query_parameters_are_decoded_in_order(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let response = server.get("/inspect?b=1&a=two+words&b=%C3%BC%26%3D&empty=&alone").await?;
    ensure!(inspected(&response, "param")? == ["b=1", "a=two words", "b=ü&=", "empty=", "alone="]);
    server.stop().await
}

async fn repeated_headers_keep_their_order(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let request = server.request(Method::GET, "/inspect").header("x-b", "1").header("X-A", "2").header("x-b", "3");
    let response = server.answer(request.body(Full::default())?).await?;
    let headers = inspected(&response, "header")?;
    let of = |name: &str| headers.iter().filter_map(|header| header.strip_prefix(name)).collect::<Vec<_>>();
    ensure!(of("x-b: ") == ["1", "3"] && of("x-a: ") == ["2"]);
    ensure!(of("host: ") == [server.address.to_string()]);
    server.stop().await
}

async fn headers_of_a_response_keep_their_order(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let mut request = server.request(Method::POST, "/echo").header("content-type", "image/png");
    for index in 0..50 {
        request = request.header("x-number", index);
    }
    let response = server.answer(request.body(Full::default())?).await?;
    let numbers = response.headers().get_all("x-number").iter().map(|value| value.to_str().unwrap_or_default());
    ensure!(numbers.eq((0..50).map(|index| index.to_string())));
    ensure!(response.headers()[header::CONTENT_TYPE] == "image/png");
    server.stop().await
}

async fn a_body_of_nothing_is_no_missing_body(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let without = server.get("/inspect").await?;
    ensure!(without.body().ends_with(b"\nno body\n"), "{:?}", without.body());
    let empty = server.request(Method::POST, "/inspect").header(header::CONTENT_LENGTH, 0);
    ensure!(inspected(&server.answer(empty.body(Full::default())?).await?, "body")? == ["0 bytes"]);
    server.stop().await
}

async fn bodies_come_back_byte_for_byte(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for bytes in [0, 1, 1000, 65536, 10_000_000] {
        let body: Bytes = (0..bytes).map(|index| (index % 251) as u8).collect();
        let response = server.send(Method::POST, "/echo", body.clone()).await?;
        let same = *response.body() == body;
        ensure!(response.status() == StatusCode::OK && same, "{bytes} bytes are not the same");
    }
    server.stop().await
}

async fn a_request_in_chunks_has_a_body(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let request = server.request(Method::POST, "/inspect").header(header::TRANSFER_ENCODING, "chunked");
    let response = server.answer(request.body(Full::from("in chunks"))?).await?;
    ensure!(inspected(&response, "body")? == ["9 bytes"]);
    server.stop().await
}

async fn a_path_that_is_not_there_is_the_guests_404(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let response = server.get("/missing").await?;
    ensure!(response.status() == StatusCode::NOT_FOUND);
    ensure!(response.body() == "nothing here");
    server.stop().await
}

async fn a_method_that_is_not_allowed_is_the_guests_405(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let response = server.send(Method::DELETE, "/", Bytes::new()).await?;
    ensure!(response.status() == StatusCode::METHOD_NOT_ALLOWED);
    ensure!(response.headers()[header::ALLOW] == "GET");
    server.stop().await
}

async fn any_status_is_the_guests(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for status in [200, 204, 299, 301, 304, 418, 451, 503, 599, 999] {
        ensure!(server.get(&format!("/status/{status}")).await?.status().as_u16() == status);
    }
    server.stop().await
}

async fn requests_at_once_get_their_own_answers(subject: Subject) -> anyhow::Result<()> {
    Server::start(subject.guest()?).await?.answers_each_of_many_at_once().await
}

async fn requests_on_one_connection_are_answered_in_turn(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for index in 0..200 {
        let path = format!("/inspect?index={index}");
        ensure!(inspected(&server.get(&path).await?, "param")? == [format!("index={index}")]);
    }
    server.stop().await
}

async fn a_trap_is_500_and_the_next_request_is_served(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for _ in 0..3 {
        ensure!(server.get("/trap").await?.status() == StatusCode::INTERNAL_SERVER_ERROR);
        ensure!(server.get("/").await?.body() == "Hello from WASM!");
    }
    let stderr = server.stderr()?;
    ensure!(stderr.matches("trap: unreachable instruction executed\nwasm backtrace:\n").count() == 3, "{stderr}");
    server.stop().await
}

async fn a_trap_is_500_although_nobody_reads_the_output(subject: Subject) -> anyhow::Result<()> {
    let (_reader, mut writer) = pipe()?;
    // As much as a pipe holds (pipe(7)).
    writer.write_all(&[b'x'; 65536])?;
    let server = Server::start(subject.guest()?.stderr(writer)).await?;
    for _ in 0..2 {
        ensure!(server.get("/trap").await?.status() == StatusCode::INTERNAL_SERVER_ERROR);
        ensure!(server.get("/").await?.body() == "Hello from WASM!");
    }
    server.stop().await
}

async fn traps_at_once_are_500_each(subject: Subject) -> anyhow::Result<()> {
    let server = Arc::new(Server::start(subject.guest()?).await?);
    let mut requests = JoinSet::new();
    for index in 0..50 {
        let server = Arc::clone(&server);
        let (path, status) = if index % 2 == 0 { ("/trap", 500) } else { ("/", 200) };
        requests.spawn(async move { anyhow::Ok((server.get(path).await?.status().as_u16(), status)) });
    }
    while let Some(answered) = requests.join_next().await {
        let (status, expected) = answered??;
        ensure!(status == expected);
    }
    Ok(())
}

async fn a_handler_reads_and_writes_a_store(subject: Subject) -> anyhow::Result<()> {
    let store = Store::new(StoreKind::Sqlite)?;
    let server = Arc::new(Server::start(subject.guest()?.state_stores(store.state_stores())).await?);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let server = Arc::clone(&server);
        requests.spawn(async move {
            let response = server.get("/visits").await?;
            ensure!(response.status() == StatusCode::OK, "{:?}", response.body());
            Ok(std::str::from_utf8(response.body())?.parse::<u64>()?)
        });
    }
    let mut visits = Vec::new();
    while let Some(answered) = requests.join_next().await {
        visits.push(answered??);
    }
    visits.sort_unstable();
    ensure!(visits.iter().copied().eq(1..=20), "{visits:?}");
    Ok(())
}

async fn a_handler_without_its_store_says_so(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    let response = server.get("/visits").await?;
    ensure!(response.status() == StatusCode::INTERNAL_SERVER_ERROR);
    ensure!(response.body() == "not-found: no state store \"state\"; configured: none");
    server.stop().await
}

/// Answers what it was asked, or the error that it was asked for.
struct Upstream;

#[async_trait]
impl HttpClient for Upstream {
    async fn send(&self, request: host_abi::http::Request) -> Result<host_abi::http::Response, HttpError> {
        let host_abi::http::Request { method, uri, headers, params, body } = request;
        let errors = [
            ("http://unreachable/", HttpError::RequestError),
            ("http://busy/", HttpError::TooManyRequests),
            ("nonsense", HttpError::InvalidUrl),
        ];
        if let Some((_, error)) = errors.iter().find(|(url, _)| uri == *url) {
            return Err(*error);
        }
        Ok(host_abi::http::Response {
            status: 202,
            headers: Some(vec![("content-type".to_owned(), "text/asked".to_owned())]),
            body: Some(format!("{method:?} {uri} {headers:?} {params:?} {body:?}").into()),
        })
    }
}

async fn a_handler_makes_requests_itself(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?.http_client(Upstream)).await?;
    let response = server.get("/upstream?url=http://elsewhere/path?a%3Db").await?;
    ensure!(response.status() == StatusCode::ACCEPTED);
    ensure!(response.headers()[header::CONTENT_TYPE] == "text/asked");
    ensure!(response.body() == "Get http://elsewhere/path?a=b [] [] None");
    server.stop().await
}

async fn a_request_to_nowhere_is_an_error_of_the_guest(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?.http_client(Upstream)).await?;
    let errors =
        [("http://unreachable/", "request-error"), ("http://busy/", "too-many-requests"), ("nonsense", "invalid-url")];
    for (url, error) in errors {
        let response = server.get(&format!("/upstream?url={url}")).await?;
        ensure!(response.status() == StatusCode::BAD_GATEWAY);
        ensure!(response.body() == error);
    }
    server.stop().await?;
    let server = Server::start(subject.guest()?).await?;
    ensure!(server.get("/upstream?url=http://elsewhere/").await?.body() == "destination-not-allowed");
    server.stop().await
}

async fn an_instance_never_sees_the_memory_of_another(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for _ in 0..50 {
        ensure!(server.get("/memory").await?.body() == "fresh");
    }
    server.stop().await
}

async fn an_exit_is_500_and_the_next_request_is_served(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for _ in 0..3 {
        ensure!(server.get("/exit").await?.status() == StatusCode::INTERNAL_SERVER_ERROR);
        ensure!(server.get("/memory").await?.body() == "fresh");
    }
    ensure!(server.stderr()? == "GET /exit: exited with code 3\n".repeat(3));
    server.stop().await
}

async fn a_response_that_is_none_is_500(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for path in ["/status", "/header"] {
        let response = server.get(path).await?;
        ensure!(response.status() == StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        ensure!(response.headers().keys().all(|name| !name.as_str().starts_with('x')), "{path}");
    }
    ensure!(server.stderr()?.lines().count() == 2, "{}", server.stderr()?);
    server.stop().await
}

/// Has a server's guests begin as many endless loops as there are threads. Dropping the answer drops the clients.
async fn loops(server: &Server, stdout: PipeReader) -> anyhow::Result<JoinSet<()>> {
    let mut stdout = stdout;
    let mut requests = JoinSet::new();
    for _ in 0..WORKERS {
        let request = server.client.request(server.request(Method::GET, "/loop").body(Full::default())?);
        requests.spawn(async move { drop(request.await) });
        stdout = spawn_blocking(move || stdout.read_exact(&mut [0]).map(|()| stdout)).await??;
    }
    Ok(requests)
}

async fn an_endless_loop_holds_up_nobody(subject: Subject) -> anyhow::Result<()> {
    let (stdout, writer) = pipe()?;
    let server = Server::start(subject.guest()?.stdout(writer)).await?;
    let looping = loops(&server, stdout).await?;
    ensure!(server.get("/memory").await?.body() == "fresh");
    drop(looping);
    server.stop().await
}

async fn a_handler_ends_when_its_client_is_gone(subject: Subject) -> anyhow::Result<()> {
    let (stdout, writer) = pipe()?;
    let server = Server::start(subject.guest()?.stdout(writer)).await?;
    drop(loops(&server, stdout).await?);
    // The server waits for its requests.
    server.stop().await
}

async fn the_guest_of_the_tutorial_loses_no_greeting(subject: Subject) -> anyhow::Result<()> {
    let store = Store::new(StoreKind::Sqlite)?;
    let server = Server::start(subject.guest()?.state_stores(store.state_stores())).await?;
    let greetings = (0..50).map(async |_| {
        let response = server.get("/Ada").await?;
        ensure!(response.status() == StatusCode::OK, "{:?}", response.body());
        Ok(())
    });
    try_join_all(greetings).await?;
    let last = server.get("/Ada").await?;
    ensure!(last.body() == "Hello, Ada! This is greeting number 51.\n", "{:?}", last.body());
    server.stop().await
}
