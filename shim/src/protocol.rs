//! What the shim and a guest host say to each other, one message a packet, over a socket pair. A guest host finds its
//! end as its standard input.
//!
//! A container's life: the shim sends [`ToGuestHost::Job`] to the process it has just executed, and with it four descriptors:
//! the container's standard streams (input, output, error), and a file with [`Job::Create`]. That process answers
//! [`FromGuestHost::Created`] and leaves; the container's own process holds the socket from then on, and answers
//! [`FromGuestHost::Ready`] once nothing but the start is missing. The shim sends [`ToGuestHost::Start`] and gets
//! [`FromGuestHost::Started`].
//!
//! One more process in a container: the shim sends a [`Job::Exec`] in the same way, with a fifth descriptor, a pidfd of the
//! container's first process, and gets [`FromGuestHost::Created`] once the new one runs.
//!
//! [`FromGuestHost::Failed`] may stand in the place of any answer, and is the last.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
    socketpair,
};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::operator_config::OperatorConfig;

/// A folder of the bundle: libcontainer's, and whatever else a container needs outside its root. It is made before the
/// container has anything, and removed when nothing of it is left.
pub(crate) const STATE_FOLDER: &str = "libcontainer";

/// No message is larger.
const MAX_MESSAGE: usize = 128 * 1024;
/// Bytes of a failure's message. In JSON, each may become six.
const MAX_FAILURE: usize = 16 * 1024;
/// As many as the kernel lets a message have (its SCM_MAX_FD). Of those that a smaller buffer cut off nobody could say which
/// ones this process has already.
const MAX_DESCRIPTORS: usize = 253;

/// What a guest host is executed for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Create(Box<CreateContainer>),
    Exec(Box<ExecProcess>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToGuestHost {
    /// The [`Job`] comes with the message, as a file: an exec's arguments and environment may be long.
    Job,
    Start,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateContainer {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    /// What the container's root is mounted from, in order; none where it lies in the bundle.
    pub(crate) rootfs: Vec<RootfsMount>,
    pub(crate) operator: OperatorConfig,
}

/// One more process for a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecProcess {
    pub(crate) container_id: String,
    pub(crate) bundle: PathBuf,
    /// The container's first process.
    pub(crate) container_pid: i32,
    /// As OCI has it.
    pub(crate) process: Value,
    pub(crate) operator: OperatorConfig,
}

/// What `dapr-wasm` gives a guest host on its standard input, to compile the modules of an image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WarmImage {
    pub(crate) image: String,
    /// Where the image's root is mounted, to be read only.
    pub(crate) root: PathBuf,
    /// What it is mounted from.
    pub(crate) mounts: Vec<RootfsMount>,
    /// By name; all where there is none.
    pub(crate) engines: Vec<String>,
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
    /// The process exists, a child of the shim. The master of its terminal comes with the message, if it has one.
    Created { pid: i32 },
    /// Everything that can be known before the start is in order.
    Ready,
    /// The trigger is at work: an HTTP port accepts connections.
    Started,
    /// What was asked cannot be done; the process ends.
    Failed { message: String },
}

impl FromGuestHost {
    /// Of an error's message, which may have parts of a guest's making, as much as a packet can hold whatever the characters.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        let mut message = format!("{error:#}");
        if message.len() > MAX_FAILURE {
            message.truncate(message.floor_char_boundary(MAX_FAILURE));
            message.push('…');
        }
        Self::Failed { message }
    }
}

/// Two ends of a new connection.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a job, the standard streams that it is about, and the container's first process, where it has one.
pub(crate) fn send_job(
    socket: &OwnedFd,
    job: &Job,
    streams: [BorrowedFd<'_>; 3],
    container: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut file = File::from(memfd_create("job", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(job)?)?;
    file.rewind()?;
    let [stdin, stdout, stderr] = streams;
    let descriptors = [Some(stdin), Some(stdout), Some(stderr), Some(file.as_fd()), container];
    let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
    send_with_descriptors(socket, &ToGuestHost::Job, &descriptors)
}

/// What a guest host was executed for.
pub(crate) struct ReceivedJob {
    pub(crate) job: Job,
    pub(crate) streams: [File; 3],
    /// A pidfd of the container's first process, where it has one.
    pub(crate) container: Option<OwnedFd>,
}

/// Receives the job that this process was executed for.
pub(crate) fn receive_job(socket: &OwnedFd) -> anyhow::Result<ReceivedJob> {
    let (message, mut descriptors) = receive_with_descriptors(socket)?.context("the shim is gone")?;
    let container = if descriptors.len() == 5 { descriptors.pop() } else { None };
    let files: Vec<_> = descriptors.into_iter().map(File::from).collect();
    let (ToGuestHost::Job, Ok([stdin, stdout, stderr, mut file])) = (message, <[File; 4]>::try_from(files)) else {
        bail!("the shim sent something else than a job with three streams");
    };
    let mut job = Vec::new();
    file.read_to_end(&mut job)?;
    Ok(ReceivedJob { job: serde_json::from_slice(&job)?, streams: [stdin, stdout, stderr], container })
}

/// Sends one message.
pub(crate) fn send_message(socket: &OwnedFd, message: &impl Serialize) -> io::Result<()> {
    send_with_descriptors(socket, message, &[])
}

/// Sends one message, and descriptors with it.
pub(crate) fn send_with_descriptors(
    socket: &OwnedFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large"));
    }
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights = if descriptors.is_empty() { &[][..] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&packet)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message; `None` when everyone at the other end has gone.
pub(crate) fn receive_message<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<T>> {
    Ok(receive_with_descriptors(socket)?.map(|(message, _)| message))
}

/// Receives one message and the descriptors that came with it.
pub(crate) fn receive_with_descriptors<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    // Most are far shorter than the longest.
    let length = match recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
        // The other end went without reading what it had been sent.
        Ok(0) | Err(nix::Error::ECONNRESET) => return Ok(None),
        length => length?,
    };
    let mut packet = vec![0; length];
    let descriptors = receive_descriptors(socket, &mut packet)?;
    Ok(Some((serde_json::from_slice(&packet)?, descriptors)))
}

/// Receives bytes, and all descriptors that came with them.
pub(crate) fn receive_descriptors(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut rights = cmsg_space!([i32; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut rights), MsgFlags::MSG_CMSG_CLOEXEC)?;
    Ok(received.cmsgs()?.flat_map(received_descriptors).collect())
}

fn received_descriptors(rights: ControlMessageOwned) -> Vec<OwnedFd> {
    let ControlMessageOwned::ScmRights(descriptors) = rights else { return Vec::new() };
    // SAFETY: the kernel has just installed the descriptors in this process, and nothing else knows them.
    #[expect(unsafe_code, reason = "see above")]
    descriptors.into_iter().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_nobody_asked_for_are_received_to_be_closed() {
        let (here, there) = pair().unwrap();
        for count in [0, 1, 5, MAX_DESCRIPTORS] {
            send_with_descriptors(&there, &ToGuestHost::Start, &vec![there.as_fd(); count]).unwrap();
            let (message, descriptors) = receive_with_descriptors(&here).unwrap().unwrap();
            assert!(matches!(message, ToGuestHost::Start));
            assert_eq!(descriptors.len(), count);
        }
    }
}
