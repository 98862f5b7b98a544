//! A request's way to a guest, and the answer's way back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use host_abi::canonical::ByteChunks;
use host_abi::http::{Method, Request, Response};
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version, request};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::activity::Activity;
use super::admission::Admission;
use super::answers::Answers;
use super::bodies::{Bodies, Room};
use super::handlers::Handlers;
use super::options::HttpOptions;
use crate::guest_host::http_message::{guest_headers, guest_method, is_of_the_connection};
use crate::guest_host::trigger::Guests;
use crate::guest_host::trigger::reports::Reports;
use crate::guest_host::workers::Workers;

/// How long an answer waits for its report.
const PATIENCE: Duration = Duration::from_secs(1);

/// What all connections share. Each has a clone in an `Arc` of its own: to count references to one of all connections,
/// processors would wait for each other at every request.
#[derive(Clone)]
pub(super) struct Server {
    options: HttpOptions,
    limits: Arc<Limits>,
    handlers: Arc<Handlers>,
    reports: Arc<Reports>,
    workers: Workers,
}

struct Limits {
    admission: Admission,
    bodies: Bodies,
    answers: Answers,
}

impl Server {
    pub(super) fn new(guests: Guests, options: HttpOptions, workers: Workers) -> Self {
        let limits = Arc::new(Limits {
            admission: Admission::new(options.max_concurrency, options.max_queue),
            bodies: Bodies::new(options.max_buffered, options.max_body_size),
            answers: Answers::new(options.max_buffered, options.max_concurrency),
        });
        let reports = Arc::new(Reports::new(Arc::clone(&guests.wasi.stderr), PATIENCE));
        let handlers = Arc::new(Handlers::new(guests, options.instances));
        Self { limits, handlers, reports, workers, options }
    }

    pub(super) async fn answer(
        self: &Arc<Self>,
        request: hyper::Request<Incoming>,
        activity: &Arc<Activity>,
    ) -> hyper::Response<Full<Bytes>> {
        self.answer_or_status(request, activity).await.unwrap_or_else(|status| {
            let mut response = hyper::Response::new(Full::from(format!("{status}\n")));
            *response.status_mut() = status;
            response
        })
    }

    /// The guest's answer, or the status that stands for it.
    async fn answer_or_status(
        self: &Arc<Self>,
        request: hyper::Request<Incoming>,
        activity: &Arc<Activity>,
    ) -> Result<hyper::Response<Full<Bytes>>, StatusCode> {
        let deadline = Instant::now() + self.options.request_timeout;
        let (head, body) = request.into_parts();
        if size(&head) > self.options.max_header_size {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        if !names_its_host(&head) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let method = guest_method(&head.method).ok_or(StatusCode::NOT_IMPLEMENTED)?;
        if body.size_hint().lower() > self.options.max_body_size as u64 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        // Before there is a place: a client that does not send would keep it from others.
        let (body, room) = self.whole_body(&head, body, deadline).await?;
        let place = timeout_at(deadline, self.limits.admission.enter()).await.ok().flatten();
        let _place = place.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        drop(room);
        let (server, request) = (Arc::clone(self), to_guest(method, &head, body));
        let handled = async move { server.handlers.handle(request).await };
        // Whatever has come to this worker meanwhile gets its turn. Within the timeout this wait would need a timer, and a new
        // timer that is the next one to end wakes the runtime.
        yield_now().await;
        let handled = timeout_at(deadline, self.workers.run_here_while_short(handled)).await;
        let Ok(handled) = handled else {
            let timeout = self.options.request_timeout;
            self.reports.write(format!("{} {} took longer than {timeout:?}", head.method, head.uri.path())).await;
            return Err(StatusCode::GATEWAY_TIMEOUT);
        };
        let answer = handled
            .and_then(|response| from_guest(response, head.method == http::Method::HEAD).context("invalid response"));
        match answer {
            Ok(response) => {
                let (answer, body) = response.into_parts();
                match self.limits.answers.hold(body, head.version, activity, deadline).await {
                    Some(body) => Ok(hyper::Response::from_parts(answer, Full::new(body))),
                    // The guest has done its work: it must not look as if the request could be made again.
                    None => Err(self.failed(&head, "no room for the answer: too many are not read").await),
                }
            }
            Err(error) => Err(self.failed(&head, &format!("{error:#}")).await),
        }
    }

    async fn failed(&self, head: &request::Parts, why: &str) -> StatusCode {
        self.reports.write(format!("{} {}: {why}", head.method, head.uri.path())).await;
        StatusCode::INTERNAL_SERVER_ERROR
    }

    /// Everything that the client sends, if it says that it sends something.
    async fn whole_body(
        &self,
        head: &request::Parts,
        body: Incoming,
        deadline: Instant,
    ) -> Result<(Option<ByteChunks>, Room<'_>), StatusCode> {
        let headers = &head.headers;
        if body.is_end_stream() && !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
            return Ok((None, None));
        }
        // It would be refused after it was read.
        if self.limits.admission.is_full() {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let collected = timeout_at(deadline, self.limits.bodies.collect(body, head.version)).await;
        let (body, room) = collected.map_err(|_| StatusCode::REQUEST_TIMEOUT)??;
        Ok((Some(body), room))
    }
}

/// The bytes of a head, as HTTP/1.1 writes it.
fn size(head: &request::Parts) -> usize {
    let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let uri = head.uri.path_and_query().map_or(1, |uri| uri.as_str().len());
    head.method.as_str().len() + uri + "  HTTP/1.1\r\n\r\n".len() + headers.sum::<usize>()
}

/// Whether a request names one host where its version wants that, and in no other way (RFC 9112, 3.2; RFC 9113, 8.3.1).
fn names_its_host(head: &request::Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(|&byte| is_of_a_host(byte)),
        (Some(_), Some(_)) => false,
        (None, _) => match head.version {
            Version::HTTP_11 => false,
            Version::HTTP_2 => head.uri.authority().is_some(),
            _ => true,
        },
    }
}

/// What a host and its port are written with (RFC 3986, 3.2.2).
fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// The request as a guest sees it, whatever it came by.
fn to_guest(method: Method, head: &request::Parts, body: Option<ByteChunks>) -> Request {
    let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
    // HTTP/2, and HTTP/1.1 to a proxy, have the host in another place, which counts (RFC 9112, 3.2.2).
    let authority = head.uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
    let others = guest_headers(&head.headers).filter(|(name, _)| authority.is_none() || name != HOST.as_str());
    let host = authority.map(|authority| (HOST.as_str().to_owned(), authority.to_owned()));
    let headers = host.into_iter().chain(others).collect();
    let query = head.uri.query().unwrap_or_default();
    let params = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    Request { method, uri, headers, params, body }
}

fn from_guest(response: Response, head: bool) -> anyhow::Result<hyper::Response<Bytes>> {
    let status = StatusCode::from_u16(response.status).ok().filter(|status| !status.is_informational());
    let status = status.with_context(|| format!("status {}", response.status))?;
    let mut headers = HeaderMap::new();
    for (name, value) in response.headers.unwrap_or_default() {
        let name = HeaderName::try_from(&name).with_context(|| format!("header name {name:?}"))?;
        let value = HeaderValue::try_from(value).with_context(|| format!("value of header {name}"))?;
        // The answer to a HEAD says how long the body would have been.
        if !is_of_the_connection(&name) || (head && name == CONTENT_LENGTH) {
            headers.try_append(name, value).context("too many headers")?;
        }
    }
    let mut body = response.body.unwrap_or_default();
    if head && !body.is_empty() && !headers.contains_key(CONTENT_LENGTH) {
        headers.try_insert(CONTENT_LENGTH, body.len().into()).context("too many headers")?;
    }
    // HTTP/2 would send a body where there is none.
    if head || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
        body.clear();
    }
    let mut answer = hyper::Response::new(body);
    (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
    Ok(answer)
}
