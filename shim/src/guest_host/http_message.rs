//! What is the same for requests that a guest gets and for those that it makes.

use host_abi::http::Method;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};

pub(super) fn network_method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
        Method::Patch => http::Method::PATCH,
        Method::Head => http::Method::HEAD,
        Method::Options => http::Method::OPTIONS,
    }
}

/// `None`: guests do not know it.
pub(super) fn guest_method(method: &http::Method) -> Option<Method> {
    Method::CASES.iter().copied().find(|&known| network_method(known) == *method)
}

/// Headers as a guest sees them.
pub(super) fn guest_headers(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(move |(name, value)| (name.as_str().to_owned(), text(value)))
}

/// Whether a header says how a message travels, which is the affair of the host that sends it: a guest may have it from
/// another message, and a wrong length makes the receiver wait for more, or miss some.
pub(super) fn is_of_the_connection(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}
