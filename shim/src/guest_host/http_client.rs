//! Requests that a guest makes itself, from the container's own network.

use std::error::Error;
use std::iter;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use host_abi::http::{HttpClient, HttpError, Method, Request, Response};
use http::{HeaderValue, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

/// A larger response body fails the request.
const MAX_BODY_BYTES: usize = 64 << 20;
/// From the connection to the last byte of the response.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that nobody used for so long is closed.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
const MAX_IDLE_PER_HOST: usize = 32;
const TELL_EVERY: Duration = Duration::from_secs(1);

pub(super) struct HttpCaller {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpCaller {
    pub(super) fn new() -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(MAX_IDLE_TIME).pool_max_idle_per_host(MAX_IDLE_PER_HOST);
        Self { client: client.build_http() }
    }

    async fn exchange(&self, request: http::Request<Full<Bytes>>) -> Result<Response, HttpError> {
        let response = self.client.request(request).await.map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| failed(&*error))?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
        Ok(Response { status: parts.status.as_u16(), headers: Some(headers.collect()), body: Some(body.to_bytes()) })
    }
}

#[async_trait]
impl HttpClient for HttpCaller {
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let request = to_network(request)?;
        timeout(TIMEOUT, self.exchange(request)).await.map_err(|elapsed| failed(&elapsed))?
    }
}

/// The guest learns that a request failed; why, the node's log has, once a second at most.
fn failed(error: &(dyn Error + 'static)) -> HttpError {
    static LAST_TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last_told = LAST_TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if last_told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
        *last_told = Some(Instant::now());
        let causes = iter::successors(Some(error), |&error| error.source()).map(ToString::to_string);
        let error = causes.collect::<Vec<_>>().join(": ");
        tracing::warn!(error, "a guest's own request failed");
    }
    HttpError::RequestError
}

fn to_network(request: Request) -> Result<http::Request<Full<Bytes>>, HttpError> {
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
        Method::Patch => http::Method::PATCH,
        Method::Head => http::Method::HEAD,
        Method::Options => http::Method::OPTIONS,
    };
    let mut network = http::Request::builder().method(method).uri(url(request.uri, &request.params)?);
    for (name, value) in request.headers {
        network = network.header(name, value);
    }
    network.body(Full::new(request.body.unwrap_or_default().into_bytes())).map_err(|_| HttpError::RequestError)
}

/// An absolute `http` URL with the parameters behind its own query.
fn url(mut url: String, params: &[(String, String)]) -> Result<Uri, HttpError> {
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
