//! What a connection is at work on, and whether anything moves on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A small answer, which hyper takes whole into its buffers; and what has to be written for a connection not to be idle.
pub(super) const SMALL: usize = 64 << 10;

/// For each MiB of the answers on a connection, its client has as long as an idle connection may stay, and at least so
/// long: 35 kB a second. Who reads less would keep their memory for ever.
const SLOWEST_MIB: Duration = Duration::from_secs(30);

pub(super) struct Activity {
    idle_timeout: Duration,
    requests: Mutex<Requests>,
}

struct Requests {
    under_way: usize,
    /// When their number last changed, or a part of an answer left.
    since: Instant,
    /// Answers that are not written yet.
    unread: usize,
    /// When they have to be read by, where there are any.
    unread_until: Instant,
}

/// What an answer that is overdue means for requests under way on its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Counts,
    /// They go first: there will be no new ones.
    Waits,
}

impl Activity {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        let now = Instant::now();
        let requests = Requests { under_way: 0, since: now, unread: 0, unread_until: now };
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

    /// Waits until there was no request for so long, and no part of an answer left; or until answers are not read in time.
    /// The latter is found out late, by up to `timeout`.
    pub(super) async fn idle_for(&self, timeout: Duration, overdue: Overdue) {
        let mut until = Instant::now() + timeout;
        loop {
            sleep_until(until).await;
            let now = Instant::now();
            let requests = self.requests();
            let since = if requests.under_way > 0 { now } else { requests.since };
            until = since + timeout;
            let is_overdue = requests.unread > 0 && requests.unread_until <= now;
            if until <= now || is_overdue && (overdue == Overdue::Counts || requests.under_way == 0) {
                return;
            }
        }
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
pub(super) struct Unread(Arc<Activity>);

impl Unread {
    /// Those of one connection share what it can carry, and so their time.
    pub(super) fn begin(activity: &Arc<Activity>, bytes: usize) -> Self {
        let mut requests = activity.requests();
        if requests.unread == 0 {
            requests.unread_until = Instant::now() + activity.idle_timeout;
        }
        let of_a_mib = activity.idle_timeout.max(SLOWEST_MIB);
        requests.unread_until += of_a_mib.mul_f64(bytes as f64 / f64::from(1 << 20));
        requests.unread += 1;
        drop(requests);
        Self(Arc::clone(activity))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.requests().unread -= 1;
    }
}
