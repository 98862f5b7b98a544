//! How a container's requests are served.

use std::time::Duration;

/// The limits of a server, and the lives of its guests. The defaults are those of a container that says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    pub instances: Instances,
    /// Requests that guests work on at the same time.
    pub max_concurrency: u32,
    /// Requests that wait until a guest may work on them; with more, the next is refused with 503.
    pub max_queue: u32,
    /// Bytes; a larger body is refused with 413.
    pub max_body_size: usize,
    /// Bytes of bodies that no guest has yet, together: beyond that, 503. And again of answers that are not written yet: beyond
    /// that, a request waits, and is answered with 500 in the end.
    pub max_buffered: u32,
    /// Bytes of a request's head, its first line included; a larger one is refused with 431.
    pub max_header_size: usize,
    /// From a request's head to the guest's answer. What takes longer is answered with 504, and its instance discarded.
    pub request_timeout: Duration,
    /// A connection that had no request for so long is closed; so is one whose client takes longer than this, and as long
    /// again (30 s at least) for each MiB, to read what it asked for.
    pub idle_timeout: Duration,
}

/// How long an instance lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instances {
    /// For one request.
    #[default]
    Fresh,
    /// Until it traps, exits or takes too long: what it keeps in its memory, later requests see.
    Reuse,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            instances: Instances::Fresh,
            max_concurrency: 128,
            max_queue: 1024,
            max_body_size: 16 << 20,
            max_buffered: 64 << 20,
            max_header_size: 16 << 10,
            request_timeout: Duration::from_secs(60),
            // Longer than a load balancer keeps its end.
            idle_timeout: Duration::from_secs(75),
        }
    }
}
