//! Servers on loopback ports of their own.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

/// A port that nobody has. Somebody else may take it before it is used.
///
/// # Panics
/// All are taken.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback port");
    listener.local_addr().expect("its address").port()
}

/// The server that was just executed, once it `is_ready`. None if it ended, as it does when its port was taken.
///
/// # Panics
/// It is neither by the deadline; with what its `log` says.
pub(crate) fn started(
    mut server: Child,
    deadline: Duration,
    is_ready: impl Fn(&Child) -> bool,
    log: impl Fn() -> String,
) -> Option<Child> {
    let begun = Instant::now();
    loop {
        if server.try_wait().expect("status of a child").is_some() {
            return None;
        }
        if is_ready(&server) {
            return Some(server);
        }
        if begun.elapsed() > deadline {
            let _ = server.kill();
            let _ = server.wait();
            panic!("the server is not ready within {deadline:?}: {}", log());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
