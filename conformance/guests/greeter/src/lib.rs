//! `GET /NAME` greets NAME and says how often it was greeted.

use dapr::http::types::Method;
use dapr::state::state_interface::{Concurrency, Consistency, GetOptions, WriteOptions};
use dapr::state::state_store::{self, Error, GetRequest, GetResponse, SetRequest};
use exports::dapr::http::http_handler::{Guest, Request, Response};

wit_bindgen::generate!({ path: "wit", world: "dapr:guest/http-guest", generate_all });

/// The name of the Dapr component.
const STORE: &str = "state";

struct Greeter;

export!(Greeter);

impl Guest for Greeter {
    fn handle_http_request(request: Request) -> Response {
        let path = request.uri.split('?').next().unwrap_or_default();
        match (request.method, path.trim_start_matches('/')) {
            (Method::Get, "") => text(200, "GET /NAME greets NAME"),
            (Method::Get, name) => match count(name) {
                Ok(count) => text(200, &format!("Hello, {name}! This is greeting number {count}.")),
                Err(error) => text(500, &message(error)),
            },
            _ => text(405, "only GET is allowed"),
        }
    }
}

/// Adds one to the number under `name` and returns it. The write carries the etag of the read: no greeting is lost.
fn count(name: &str) -> Result<u64, Error> {
    for _ in 0..100 {
        let found = get(name)?;
        let count = match String::from_utf8_lossy(&found.data).as_ref() {
            "" => 1,
            text => 1 + text.parse::<u64>().map_err(|_| Error::Internal(format!("not a number: {text}")))?,
        };
        let request = SetRequest {
            key: name.to_owned(),
            value: count.to_string().into_bytes(),
            etag: found.etag.clone(),
            metadata: None,
            options: WriteOptions { concurrency: Concurrency::FirstWrite, consistency: Consistency::Unspecified },
            content_type: None,
        };
        match state_store::set(STORE, &request) {
            Ok(()) => return Ok(count),
            // Another request wrote after this one read: read again.
            Err(Error::EtagMismatch(_)) => {}
            // Redis answers this where the key was new: another request created it.
            Err(Error::Internal(_)) if found.etag.is_none() && get(name)?.etag.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unavailable(format!("too many requests greet {name} at the same time")))
}

/// A key that does not exist is no error: the data is empty, and there is no etag.
fn get(name: &str) -> Result<GetResponse, Error> {
    let options = GetOptions { consistency: Consistency::Unspecified };
    state_store::get(STORE, &GetRequest { key: name.to_owned(), metadata: None, options })
}

fn text(status: u16, line: &str) -> Response {
    let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
    Response { status, headers: Some(headers), body: Some(format!("{line}\n").into_bytes()) }
}

fn message(error: Error) -> String {
    let (Error::EtagMismatch(text)
    | Error::EtagInvalid(text)
    | Error::NotFound(text)
    | Error::InvalidArgument(text)
    | Error::Unavailable(text)
    | Error::PermissionDenied(text)
    | Error::Internal(text)) = error;
    text
}
