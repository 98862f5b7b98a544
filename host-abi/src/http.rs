//! `dapr:http`: requests and responses, in both directions.

use async_trait::async_trait;
use bytes::Bytes;

use crate::canonical::{ByteChunks, TypedCall, wit_enum, wit_record};

/// Name and value pairs; a name may occur more than once, and the order is kept.
pub type Headers = Vec<(String, String)>;

wit_enum! {
    #[derive(Default)]
    pub enum Method {
        #[default]
        Get,
        Post,
        Put,
        Delete,
        Patch,
        Head,
        Options,
    }
}

wit_record! {
    #[derive(Default)]
    pub struct Request {
        pub method: Method,
        /// Inbound: path and query as received. Outbound: an absolute URL.
        pub uri: String,
        pub headers: Headers,
        /// Pairs of the query string, percent-decoded, in order.
        pub params: Vec<(String, String)>,
        pub body: Option<ByteChunks>,
    }
}

wit_record! {
    #[derive(Default)]
    pub struct Response {
        pub status: u16,
        pub headers: Option<Headers>,
        pub body: Option<Bytes>,
    }
}

wit_enum! {
    /// Why an outbound request has no response. `Success` is never answered: it is there because the
    /// numbers of the others must stay what they are.
    pub enum HttpError {
        Success,
        DestinationNotAllowed,
        InvalidUrl,
        RequestError,
        RuntimeError,
        TooManyRequests,
    }
}

/// A call of a guest's `dapr:http/http-handler#handle-http-request`.
pub type HandleHttpRequest = TypedCall<(Request,), Response>;

/// The export that makes a module an HTTP guest.
pub const HANDLE_HTTP_REQUEST: &str = "dapr:http/http-handler#handle-http-request";

/// Makes the requests of `dapr:http/http-client`, from wherever the guest's host runs.
#[async_trait]
pub trait HttpClient: Send + Sync {
    async fn send(&self, request: Request) -> Result<Response, HttpError>;
}
