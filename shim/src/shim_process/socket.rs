//! The socket of a sandbox's shim: its file goes with it, or stays behind a shim that was killed.

use std::fs::{DirBuilder, File, remove_file};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Dropped, it takes its file with it, still listening: what is there and does not answer belongs to nobody.
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// A socket at the address, or nothing where somebody answers there.
    pub(super) fn listen(address: &str) -> anyhow::Result<Option<Self>> {
        let path = path_of(address);
        let folder = path.parent().context("the socket has no folder")?;
        DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
        let _lock = lock(folder).with_context(|| format!("cannot lock {}", folder.display()))?;
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if is_served(path)? {
                    return Ok(None);
                }
                // Its shim was killed.
                remove_file(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = listener.with_context(|| format!("cannot listen at {}", path.display()))?;
        Ok(Some(Self { listener, path: path.to_owned() }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = remove_file(&self.path);
    }
}

/// Removes the socket of a shim that was killed. Another one may be at its address since.
pub(super) fn remove_dead(address: &str) -> io::Result<()> {
    let path = path_of(address);
    let _lock = path.parent().map(lock).transpose()?;
    if is_served(path)? { Ok(()) } else { remove_file(path) }
}

/// Between finding a socket dead and removing it, nobody else must have put another in its place; nor must one be taken
/// for dead that is bound and is about to listen.
fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

/// Whether somebody listens. Nobody is waited for: every sandbox of the node that starts or ends waits for the lock meanwhile.
fn is_served(path: &Path) -> nix::Result<bool> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(client.as_raw_fd(), &UnixAddr::new(path)?) {
        // A listener that is slow to accept has no room for one more.
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(true),
        Err(_) => Ok(false),
    }
}

fn path_of(address: &str) -> &Path {
    Path::new(address.trim_start_matches("unix://"))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use nix::sys::socket::{Backlog, listen};

    use super::*;

    #[test]
    fn of_many_starts_beside_a_dead_socket_one_listens() {
        const STARTS: usize = 16;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let address = format!("unix://{}", path.display());
        for _ in 0..50 {
            drop(UnixListener::bind(&path).expect("a socket"));
            let begin = Barrier::new(STARTS);
            let listen = || {
                begin.wait();
                Socket::listen(&address).expect("a socket or none")
            };
            let sockets: Vec<_> = thread::scope(|scope| {
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(listen)).collect();
                starts.into_iter().filter_map(|start| start.join().expect("no panic")).collect()
            });
            assert_eq!(sockets.len(), 1);
            remove_dead(&address).expect("nothing to do");
            assert!(path.exists(), "it listens");
            drop(sockets);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_listener_that_does_not_accept_is_alive() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let address = format!("unix://{}", path.display());
        let socket = Socket::listen(&address).expect("a socket").expect("the first");
        listen(&socket.listener, Backlog::new(1).expect("a backlog")).expect("a short queue");
        for _ in 0..4 {
            assert!(Socket::listen(&address).expect("an answer at once").is_none());
        }
    }

    #[test]
    fn a_dead_socket_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).expect("a socket"));
        remove_dead(&format!("unix://{}", path.display())).expect("a dead socket");
        assert!(!path.exists());
    }
}
