//! The trigger `http`: each request gets a fresh instance.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use engines::engine::Stop;
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, Method, Request, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Guests, InstantiateError, Signals};

/// A larger request body is refused with 413.
const MAX_BODY_BYTES: usize = 64 << 20;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Until the next attempt when a connection cannot be accepted: descriptors do not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(
    socket: TcpSocket,
    guests: Guests,
    workers: &Handle,
    mut signals: Signals,
    started: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let listener = {
        let _workers = workers.enter();
        socket.listen(BACKLOG)?
    };
    started()?;
    let shutdown = CancellationToken::new();
    let server = workers.spawn(serve(listener, guests, shutdown.clone()));
    let code = signals.next().await;
    shutdown.cancel();
    tokio::select! {
        ended = server => ended?,
        // A second signal does not wait for the requests in flight.
        _ = signals.next() => {}
    }
    Ok(code)
}

/// Answers requests, each with a fresh instance, until `shutdown` is cancelled and the requests in flight are answered.
pub async fn serve(listener: TcpListener, guests: Guests, shutdown: CancellationToken) {
    let guests = Arc::new(guests);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of descriptors, or the peer has gone already: the next one may succeed.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and whole: waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let guests = Arc::clone(&guests);
        let service = service_fn(move |request| {
            let guests = Arc::clone(&guests);
            async move { Ok::<_, Infallible>(answer(&guests, request).await) }
        });
        let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Takes a port on every address, of both families where the kernel has both.
pub(super) fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = match TcpSocket::new_v6() {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => return bind_v4(port),
        socket => socket?,
    };
    socket.set_reuseaddr(true)?;
    match socket.bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        // The family is there and switched off.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bind_v4(port),
        bound => bound.map(|()| socket),
    }
}

fn bind_v4(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket)
}

async fn answer(guests: &Guests, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
    let head = request.method() == http::Method::HEAD;
    let request = match to_guest(request).await {
        Ok(request) => request,
        Err(status) => return plain(status),
    };
    match handle(guests, request).await {
        Ok(response) => from_guest(response, head).unwrap_or_else(|error| {
            report(guests, &format!("invalid response: {error}"));
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }),
        Err(error) => {
            report(guests, &error.to_string());
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// What went wrong in a guest is for whoever reads the container's output.
fn report(guests: &Guests, message: &str) {
    let _ = writeln!(&guests.wasi.stderr, "{message}");
}

fn plain(status: StatusCode) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

async fn handle(guests: &Guests, request: Request) -> Result<Response, InstantiateError> {
    // Dropped with this future when the client goes: the guest is not left running.
    let cancel = CancellationToken::new();
    let _cancel = cancel.clone().drop_guard();
    let mut instance = guests.instantiate(cancel).await?;
    if let Some(initializer) = guests.initializer {
        match instance.run(initializer).await {
            // A guest whose `_start` ends in `proc_exit(0)` is initialized all the same.
            Ok(()) | Err(Stop::Exit(0)) => {}
            Err(stop) => return Err(stop.into()),
        }
    }
    let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
    instance.call(&mut call).await?;
    Ok(call.into_result().unwrap_or_default())
}

/// The request as a guest sees it, or the status that answers it without one.
async fn to_guest(request: hyper::Request<Incoming>) -> Result<Request, StatusCode> {
    let (parts, body) = request.into_parts();
    let has_body = parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING);
    let method = method(&parts.method).ok_or(StatusCode::NOT_IMPLEMENTED)?;
    let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let query = parts.uri.query().unwrap_or_default();
    let params = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
    })?;
    Ok(Request { method, uri, headers, params, body: has_body.then(|| body.to_bytes()) })
}

fn method(method: &http::Method) -> Option<Method> {
    Some(match *method {
        http::Method::GET => Method::Get,
        http::Method::POST => Method::Post,
        http::Method::PUT => Method::Put,
        http::Method::DELETE => Method::Delete,
        http::Method::PATCH => Method::Patch,
        http::Method::HEAD => Method::Head,
        http::Method::OPTIONS => Method::Options,
        _ => return None,
    })
}

fn from_guest(response: Response, head: bool) -> anyhow::Result<hyper::Response<Full<Bytes>>> {
    let status = StatusCode::from_u16(response.status).ok().filter(|status| !status.is_informational());
    let status = status.with_context(|| format!("status {}", response.status))?;
    let mut answer = hyper::Response::new(Full::new(response.body.unwrap_or_default()));
    *answer.status_mut() = status;
    for (name, value) in response.headers.unwrap_or_default() {
        let name = HeaderName::try_from(&name).with_context(|| format!("header name {name:?}"))?;
        let value = HeaderValue::try_from(&value).with_context(|| format!("value of header {name}"))?;
        // How the answer travels is this server's affair; only a HEAD says how long the body would have been.
        let travels = [CONNECTION, TRANSFER_ENCODING].contains(&name) || (name == CONTENT_LENGTH && !head);
        if !travels {
            answer.headers_mut().append(name, value);
        }
    }
    Ok(answer)
}
