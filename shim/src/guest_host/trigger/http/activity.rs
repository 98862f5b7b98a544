//! What a connection is at work on, and whether anything moves on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A small answer, which hyper takes whole into its buffers; and what has to be written for a connection not to be idle.
pub(super) const SMALL: usize = 64 << 10;

/// For each MiB of an answer, a client has as long as an idle connection may stay, and at least so long: 35 kB a second. Who
/// reads less, or lets one answer lie while it makes other requests, would keep its memory for ever.
const SLOWEST_MIB: Duration = Duration::from_secs(30);

pub(super) struct Activity {
    idle_timeout: Duration,
    requests: Mutex<Requests>,
}

struct Requests {
    under_way: usize,
    /// When their number last changed, or a part of an answer left.
    since: Instant,
    /// By when each answer that is not written yet has to be read.
    unread: Vec<Instant>,
    /// Of these, together.
    unread_bytes: usize,
}

impl Activity {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        let requests = Requests { under_way: 0, since: Instant::now(), unread: Vec::new(), unread_bytes: 0 };
        Self { idle_timeout, requests: Mutex::new(requests) }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let mut requests = self.requests();
        change(&mut requests.under_way);
        requests.since = Instant::now();
    }

    /// Part of an answer left.
    pub(super) fn note(&self) {
        self.change(|_| ());
    }

    /// Waits until there was no request for so long, and no part of an answer left; or until an answer was not read in time,
    /// which is found out late, by up to `timeout`.
    pub(super) async fn idle_or_overdue(&self, timeout: Duration) {
        self.idle_unless(timeout, |requests, now| requests.unread.iter().any(|by| *by <= now)).await;
    }

    /// The same of a connection that gets no new requests. Those under way are answered, and the answers share its time.
    pub(super) async fn done_or_overdue(&self, timeout: Duration) {
        let by = self.time_to_read(self.requests().unread_bytes);
        self.idle_unless(timeout, |requests, now| requests.under_way == 0 && by <= now).await;
    }

    async fn idle_unless(&self, timeout: Duration, is_overdue: impl Fn(&Requests, Instant) -> bool) {
        let mut until = Instant::now() + timeout;
        loop {
            sleep_until(until).await;
            let now = Instant::now();
            let requests = self.requests();
            let since = if requests.under_way > 0 { now } else { requests.since };
            until = since + timeout;
            if until <= now || is_overdue(&requests, now) {
                return;
            }
        }
    }

    /// When so many bytes, which are written from now on, have to be read.
    fn time_to_read(&self, bytes: usize) -> Instant {
        let of_a_mib = self.idle_timeout.max(SLOWEST_MIB);
        Instant::now() + self.idle_timeout + of_a_mib.mul_f64(bytes as f64 / f64::from(1 << 20))
    }
}

/// A request until it is answered.
pub(super) struct UnderWay<'a>(&'a Activity);

impl<'a> UnderWay<'a> {
    pub(super) fn begin(activity: &'a Activity) -> Self {
        activity.change(|under_way| *under_way += 1);
        Self(activity)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.change(|under_way| *under_way -= 1);
    }
}

/// An answer until it is read.
pub(super) struct Unread {
    activity: Arc<Activity>,
    by: Instant,
    bytes: usize,
}

impl Unread {
    /// It comes behind, or between, those that are not read yet.
    pub(super) fn begin(activity: &Arc<Activity>, bytes: usize) -> Self {
        let mut requests = activity.requests();
        requests.unread_bytes += bytes;
        let by = activity.time_to_read(requests.unread_bytes);
        requests.unread.push(by);
        drop(requests);
        Self { activity: Arc::clone(activity), by, bytes }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let mut requests = self.activity.requests();
        requests.unread_bytes -= self.bytes;
        // Which of those with the same time makes no difference.
        if let Some(index) = requests.unread.iter().position(|by| *by == self.by) {
            requests.unread.swap_remove(index);
        }
    }
}
