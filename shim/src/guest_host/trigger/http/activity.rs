//! What a connection is at work on, and whether anything moves on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// So much of a large answer has to be read in the time that a connection may be idle. Who reads a little now and then, or
/// lets one answer lie while it makes other requests, would keep its memory for ever.
const SLOWEST: usize = 1 << 20;

pub(super) struct Activity {
    idle_timeout: Duration,
    requests: Mutex<Requests>,
}

struct Requests {
    under_way: usize,
    /// When their number last changed, or a part of an answer left.
    since: Instant,
    /// By when each large answer has to be read.
    unread: Vec<Instant>,
}

impl Activity {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        let requests = Requests { under_way: 0, since: Instant::now(), unread: Vec::new() };
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

    /// Waits until there was no request for so long, and no part of an answer left; or a large answer was not read in time,
    /// which is found out within as long again.
    pub(super) async fn idle_for(&self, timeout: Duration) {
        let mut until = Instant::now() + timeout;
        loop {
            sleep_until(until).await;
            let now = Instant::now();
            let requests = self.requests();
            let since = if requests.under_way > 0 { now } else { requests.since };
            until = since + timeout;
            if until <= now || requests.unread.iter().any(|by| *by <= now) {
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

/// A large answer until it is read.
pub(super) struct Unread {
    activity: Arc<Activity>,
    by: Instant,
}

impl Unread {
    pub(super) fn begin(activity: &Arc<Activity>, bytes: usize) -> Self {
        let times = u32::try_from(bytes / SLOWEST).unwrap_or(u32::MAX).saturating_add(1);
        let by = Instant::now() + activity.idle_timeout.saturating_mul(times);
        activity.requests().unread.push(by);
        Self { activity: Arc::clone(activity), by }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let unread = &mut self.activity.requests().unread;
        // Which of those with the same time makes no difference.
        if let Some(index) = unread.iter().position(|by| *by == self.by) {
            unread.swap_remove(index);
        }
    }
}
