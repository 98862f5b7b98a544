//! Notices when the kernel has killed a process of the cgroup because memory ran out.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::Cgroup;
use super::files::Folder;

pub(in super::super) struct OomWatch {
    memory: Folder,
    /// The file that counts the kills.
    counter: &'static str,
    /// As many as were reported already.
    reported: u64,
    /// Becomes readable when there may have been one.
    notifications: Option<AsyncFd<OwnedFd>>,
}

impl OomWatch {
    /// Watches a cgroup that exists. Without its memory controller there is nothing to notice.
    pub(in super::super) fn of(cgroup: &Cgroup) -> Self {
        let memory = cgroup.folder("memory");
        let (counter, notifications) = if cgroup.unified {
            ("memory.events", watch_file(&memory, "memory.events"))
        } else {
            ("memory.oom_control", register_event(&memory, "memory.oom_control"))
        };
        // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as it lives.
        #[expect(unsafe_code, reason = "see above")]
        let notifications = notifications.and_then(|fd| Ok(unsafe { AsyncFd::register(fd) }?));
        let notifications = notifications.inspect_err(
            |error| tracing::warn!(cgroup = %memory.0.display(), %error, "cannot watch for lack of memory"),
        );
        let mut watch = Self { memory, counter, reported: 0, notifications: notifications.ok() };
        watch.reported = watch.kills();
        watch
    }

    /// Whether a process has been killed that was not reported yet.
    pub(in super::super) fn has_killed(&mut self) -> bool {
        let kills = self.kills();
        // A cgroup that is gone counts none.
        let more = kills > self.reported;
        self.reported = self.reported.max(kills);
        more
    }

    /// Waits until a process has been killed. May be dropped while it waits.
    pub(in super::super) async fn killed(&mut self) {
        loop {
            if self.notified().await.is_err() {
                return pending().await;
            }
            // cgroup v1 says that memory has run out, and then looks for someone to kill.
            for _ in 0..100 {
                if self.has_killed() {
                    return;
                }
                if self.counter == "memory.events" {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn kills(&self) -> u64 {
        self.memory.table(self.counter).get("oom_kill").copied().unwrap_or_default()
    }

    async fn notified(&self) -> io::Result<()> {
        let notifications = self.notifications.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut ready = notifications.readable().await?;
        // What it says does not matter; it is read so that the next one is noticed.
        let mut buffer = [0; 4096];
        while rustix::io::read(notifications.get_ref(), &mut buffer).is_ok_and(|length| length == buffer.len()) {}
        ready.clear_ready();
        Ok(())
    }
}

/// cgroup v1: an event descriptor, to be registered together with the file that it is about.
fn register_event(memory: &Folder, file: &str) -> io::Result<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let about = File::open(memory.0.join(file))?;
    memory.write("cgroup.event_control", &format!("{} {}", event.as_raw_fd(), about.as_raw_fd()))?;
    Ok(event)
}

/// cgroup v2: the file itself changes.
fn watch_file(memory: &Folder, file: &str) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, memory.0.join(file), inotify::WatchFlags::MODIFY)?;
    Ok(watch)
}
