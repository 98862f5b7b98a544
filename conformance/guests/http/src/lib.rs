//! A request handler: each path shows one thing that a host provides to an HTTP guest.

use std::process;

use dapr::http::http_client;
use dapr::http::types::Method;
use dapr::state::state_interface::{
    self as store, Concurrency, Consistency, GetOptions, GetRequest, SetRequest, WriteOptions,
};
use exports::dapr::http::http_handler::{Guest, Request, Response};

wit_bindgen::generate!({ path: "../../../host-abi/wit", world: "dapr:guest/http-guest", generate_all });

struct Handler;

export!(Handler);

impl Guest for Handler {
    fn handle_http_request(request: Request) -> Response {
        let path = request.uri.split('?').next().unwrap_or_default();
        match (path, request.method) {
            ("/echo", _) => echo(request),
            ("/inspect", _) => inspect(&request),
            ("/", Method::Get | Method::Head) => text(200, "Hello from WASM!"),
            ("/visits", Method::Get) => visits(),
            ("/upstream", Method::Get) => upstream(&request),
            ("/trap", Method::Get) => process::abort(),
            ("/spin", Method::Get) => spin(),
            ("/" | "/visits" | "/upstream" | "/trap" | "/spin", _) => method_not_allowed(),
            _ => match path.strip_prefix("/status/").map(str::parse) {
                Some(Ok(status)) => text(status, ""),
                _ => text(404, "nothing here"),
            },
        }
    }
}

/// The request's own body, content type and `x-` headers.
fn echo(request: Request) -> Response {
    let mut headers = request.headers;
    headers.retain(|(name, _)| name == "content-type" || name.starts_with("x-"));
    Response { status: 200, headers: Some(headers), body: request.body }
}

/// What the guest was given, one item a line.
fn inspect(request: &Request) -> Response {
    let mut lines = format!("method: {}\nuri: {}\n", method_name(request.method), request.uri);
    for (name, value) in &request.params {
        lines += &format!("param: {name}={value}\n");
    }
    for (name, value) in &request.headers {
        lines += &format!("header: {name}: {value}\n");
    }
    lines += &match &request.body {
        Some(body) => format!("body: {} bytes\n", body.len()),
        None => "no body\n".to_owned(),
    };
    text(200, &lines)
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Patch => "PATCH",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
    }
}

fn visits() -> Response {
    match count_visit() {
        Ok(count) => text(200, &count.to_string()),
        Err(error) => text(500, &error),
    }
}

/// Counts without losing a visit to a request served at the same time: a write is refused when someone else
/// wrote since the read, which shows in the etag, and is then tried again.
fn count_visit() -> Result<u64, String> {
    let mut refused = None;
    loop {
        let read = store::get(
            "state",
            &GetRequest {
                key: "visits".to_owned(),
                metadata: None,
                options: GetOptions { consistency: Consistency::Strong },
            },
        )?;
        match refused {
            Some((etag, error)) if etag == read.etag => return Err(error),
            _ => {}
        }
        let count = 1 + if read.data.is_empty() { 0 } else { parse_count(&read.data)? };
        let written = store::set(
            "state",
            &SetRequest {
                key: "visits".to_owned(),
                value: count.to_string().into_bytes(),
                etag: read.etag.clone(),
                metadata: None,
                options: WriteOptions { concurrency: Concurrency::FirstWrite, consistency: Consistency::Strong },
                content_type: None,
            },
        );
        match written {
            Ok(_) => return Ok(count),
            Err(error) => refused = Some((read.etag, error)),
        }
    }
}

fn parse_count(data: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(data);
    text.parse().map_err(|_| format!("visits is not a number: {text}"))
}

/// Answers what `GET` of the parameter `url` answers.
fn upstream(request: &Request) -> Response {
    let Some((_, url)) = request.params.iter().find(|(name, _)| name == "url") else {
        return text(400, "the parameter `url` is missing");
    };
    let sent = http_client::send(&Request {
        method: Method::Get,
        uri: url.clone(),
        headers: Vec::new(),
        params: Vec::new(),
        body: None,
    });
    match sent {
        Ok(Response { status, headers, body }) => {
            let mut headers = headers.unwrap_or_default();
            headers.retain(|(name, _)| name == "content-type");
            Response { status, headers: Some(headers), body }
        }
        Err(error) => text(502, error.name()),
    }
}

fn method_not_allowed() -> Response {
    let mut response = text(405, "method not allowed");
    response.headers.get_or_insert_default().push(("allow".to_owned(), "GET".to_owned()));
    response
}

fn text(status: u16, body: &str) -> Response {
    Response {
        status,
        headers: Some(vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())]),
        body: Some(body.as_bytes().to_owned()),
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
