//! What the shim and a guest host say to each other, one message a packet, over a socket pair.
//!
//! A container's life: the shim sends [`ToGuestHost::Create`] to the process it has just executed. That process
//! answers [`FromGuestHost::Created`] and leaves; the container's own process holds the socket from then on, and
//! answers [`FromGuestHost::Ready`] once nothing but the start is missing. The shim sends [`ToGuestHost::Start`] and gets
//! [`FromGuestHost::Started`]. [`FromGuestHost::Failed`] may stand in the place of any answer, and is the last.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd as _;

use crate::operator_config::OperatorConfig;

/// The descriptor of the socket in a freshly executed guest host.
pub(crate) const CONTROL_FD: i32 = 3;
/// The container's standard streams there: input, output, error.
pub(crate) const STDIO_FDS: [i32; 3] = [4, 5, 6];

/// No message is larger: a spec's paths and mounts fit many times over.
const MAX_MESSAGE: usize = 128 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToGuestHost {
    Create(Box<CreateContainer>),
    Start,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateContainer {
    pub(crate) id: String,
    /// containerd's namespace.
    pub(crate) namespace: String,
    pub(crate) bundle: PathBuf,
    /// What the container's root is mounted from, in order; none where it lies in the bundle.
    pub(crate) rootfs: Vec<RootfsMount>,
    pub(crate) operator: OperatorConfig,
}

/// A mount as containerd's snapshotter describes it (`types.Mount`).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootfsMount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromGuestHost {
    /// The container exists; `pid` is its first process, a child of the shim.
    Created { pid: i32 },
    /// Everything that can be known before the start is in order.
    Ready,
    /// The trigger is at work: an HTTP port accepts connections.
    Started,
    /// What was asked cannot be done; the process ends.
    Failed { message: String },
}

/// Two ends of a new connection.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message.
pub(crate) fn send_message(socket: &OwnedFd, message: &impl Serialize) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large"));
    }
    send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Receives one message; `None` when everyone at the other end has gone.
pub(crate) fn receive_message<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<T>> {
    let mut packet = vec![0; MAX_MESSAGE];
    let length = match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        // The other end went without reading what it had been sent.
        Err(nix::Error::ECONNRESET) => 0,
        result => result?,
    };
    if length == 0 { Ok(None) } else { Ok(Some(serde_json::from_slice(&packet[..length])?)) }
}
