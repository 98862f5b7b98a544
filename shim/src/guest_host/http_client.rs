//! Requests that a guest makes itself, from the container's own network.

use std::error::Error;
use std::iter;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host_abi::canonical::ByteChunks;
use host_abi::http::{HttpClient, HttpError, Method, Request, Response};
use http::Uri;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::uri::Authority;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::http_message::{guest_headers, is_of_the_connection, network_method};
use crate::logging::OnceASecond;

/// A larger response body fails the request.
const MAX_BODY_BYTES: usize = 64 << 20;
/// From the connection to the last byte of the response.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that nobody used for so long is closed.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
const MAX_IDLE_PER_HOST: usize = 32;

pub(super) struct HttpCaller {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpCaller {
    pub(super) fn new() -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(MAX_IDLE_TIME).pool_max_idle_per_host(MAX_IDLE_PER_HOST);
        Self { client: client.build_http() }
    }

    async fn exchange(&self, request: http::Request<Full<Bytes>>) -> Result<Response, Box<dyn Error + Send + Sync>> {
        let response = self.client.request(request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await?;
        let headers = guest_headers(&parts.headers).collect();
        Ok(Response { status: parts.status.as_u16(), headers: Some(headers), body: Some(body.to_bytes()) })
    }
}

#[async_trait]
impl HttpClient for HttpCaller {
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let request = to_network(request)?;
        let host = request.uri().authority().cloned();
        let host = host.as_ref().map_or("", Authority::as_str);
        match timeout(TIMEOUT, self.exchange(request)).await {
            Ok(exchanged) => exchanged.map_err(|error| failed(host, &*error)),
            Err(elapsed) => Err(failed(host, &elapsed)),
        }
    }
}

/// The guest learns that a request failed; why, the node's log has, once a second at most.
fn failed(host: &str, error: &(dyn Error + 'static)) -> HttpError {
    static WARNING: OnceASecond = OnceASecond::new();
    if WARNING.is_due() {
        let causes = iter::successors(Some(error), |&error| error.source()).map(ToString::to_string);
        let error = causes.collect::<Vec<_>>().join(": ");
        tracing::warn!(host, error, "a guest's own request failed");
    }
    HttpError::RequestError
}

/// The URL says where the request goes. What the server is told as `host` is the guest's own header, if there is one: a
/// request that is passed on with all of its headers names the host that it came to.
fn to_network(request: Request) -> Result<http::Request<Full<Bytes>>, HttpError> {
    let mut network =
        http::Request::builder().method(network_method(request.method)).uri(url(request.uri, &request.params)?);
    for (name, value) in request.headers {
        let name = HeaderName::try_from(name).map_err(|_| HttpError::RequestError)?;
        if !is_of_the_connection(&name) {
            network = network.header(name, value);
        }
    }
    let body = request.body.map(ByteChunks::into_bytes);
    // Of a body of no bytes, hyper would say nothing, and some servers want to be told (RFC 9110, 8.6).
    let has_meaning = matches!(request.method, Method::Post | Method::Put | Method::Patch);
    match &body {
        Some(body) => network = network.header(CONTENT_LENGTH, body.len()),
        None if has_meaning => network = network.header(CONTENT_LENGTH, 0),
        None => {}
    }
    network.body(Full::new(body.unwrap_or_default())).map_err(|_| HttpError::RequestError)
}

/// An absolute `http` URL with the parameters behind its own query. No server gets to see a fragment.
fn url(mut url: String, params: &[(String, String)]) -> Result<Uri, HttpError> {
    if let Some(fragment) = url.find('#') {
        url.truncate(fragment);
    }
    if !params.is_empty() {
        let separator = if url.contains('?') { '&' } else { '?' };
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
        url.push(separator);
        url.push_str(&query);
    }
    let uri: Uri = url.parse().map_err(|_| HttpError::InvalidUrl)?;
    // There is no TLS here yet: an `https` URL must not be sent in the clear.
    if uri.scheme_str() == Some("http") && uri.host().is_some() { Ok(uri) } else { Err(HttpError::InvalidUrl) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use host_abi::http::Method;
    use tokio::runtime;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)], body: Option<&'static str>) -> Request {
        Request {
            method: Method::Post,
            uri: uri.to_owned(),
            headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            params: Vec::new(),
            body: body.map(|text| Bytes::from(text).into()),
        }
    }

    /// What a server reads of a request with these headers and the body `the body`.
    fn read_by_a_server(headers: &[(&str, &str)]) -> String {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = request(&format!("http://{}/", server.local_addr().unwrap()), headers, Some("the body"));
        let reads = thread::spawn(move || {
            let mut stream = server.accept().unwrap().0;
            let (mut read, mut part) = (Vec::new(), [0; 1024]);
            while !read.ends_with(b"the body") {
                let length = stream.read(&mut part).unwrap();
                assert_ne!(length, 0, "{}", String::from_utf8_lossy(&read));
                read.extend(&part[..length]);
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            String::from_utf8(read).unwrap()
        });
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let response = runtime.block_on(async { HttpCaller::new().send(request).await }).unwrap();
        assert_eq!(response.status, 204);
        reads.join().unwrap()
    }

    #[test]
    fn a_request_that_is_passed_on_with_another_body_says_how_long_this_one_is() {
        for other in [("content-length", "3"), ("content-length", "3000"), ("transfer-encoding", "chunked")] {
            let read = read_by_a_server(&[("host", "shop.example"), ("connection", "close"), other, ("x-own", "1")]);
            let (head, body) = read.split_once("\r\n\r\n").unwrap();
            let mut headers: Vec<_> = head.lines().skip(1).collect();
            headers.sort_unstable();
            assert_eq!(headers, ["content-length: 8", "host: shop.example", "x-own: 1"], "{other:?}");
            assert_eq!(body, "the body", "{other:?}");
        }
    }

    #[test]
    fn a_body_of_nothing_is_no_missing_body() {
        let length = |method, body| {
            let request = request("http://elsewhere/", &[("content-length", "3")], body);
            to_network(Request { method, ..request }).unwrap().headers().get(CONTENT_LENGTH).cloned()
        };
        assert_eq!(length(Method::Get, Some("")).unwrap(), "0");
        assert_eq!(length(Method::Get, None), None);
        assert_eq!(length(Method::Post, None).unwrap(), "0");
    }

    #[test]
    fn parameters_come_behind_the_query_and_nothing_of_a_fragment() {
        let params = [("a".to_owned(), "1 2".to_owned())];
        for (text, expected) in [
            ("http://elsewhere", "http://elsewhere/?a=1+2"),
            ("http://elsewhere/path?b=3", "http://elsewhere/path?b=3&a=1+2"),
            ("http://elsewhere/path#part", "http://elsewhere/path?a=1+2"),
            ("http://elsewhere/path?b=3#part?", "http://elsewhere/path?b=3&a=1+2"),
        ] {
            assert_eq!(url(text.to_owned(), &params).unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(url("http://elsewhere/path#part".to_owned(), &[]).unwrap().to_string(), "http://elsewhere/path");
    }
}
