//! A container's standard streams: what containerd names in a create request, opened for the guest host.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::net::unix::pipe;

/// A process's standard streams as a request names them: paths of FIFOs, or of files to append to. An empty name is no
/// stream.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamNames {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// Input and output are a terminal's; there is no `stderr` then.
    pub(super) terminal: bool,
}

/// The ends that a guest host gets.
pub(super) struct GuestStreams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The ends that the shim keeps. A FIFO whose other ends are all closed is at its end for good: containerd may be
/// stopped and come back, so the shim holds a writer of the input until it is told to close it, and a reader of each
/// output that it never reads from.
pub(super) struct KeptStreams {
    stdin: Option<File>,
    _outputs: Vec<File>,
}

impl KeptStreams {
    /// The guest's input ends once its other writers have closed it as well.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }
}

/// Opens the three streams. What is no stream is at its end as input, and thrown away as output; the same holds for the
/// streams of a process that will have a terminal.
pub(super) fn open(names: &StreamNames) -> anyhow::Result<(GuestStreams, KeptStreams)> {
    let StreamNames { stdin, stdout, stderr, terminal } = names;
    let [stdin, stdout, stderr] = if *terminal { ["", "", ""] } else { [stdin.as_str(), stdout, stderr] };
    let (stdin, kept_stdin) = open_input(stdin).with_context(|| format!("cannot open standard input {stdin:?}"))?;
    let mut kept_outputs = Vec::new();
    let mut output = |name: &str| -> anyhow::Result<OwnedFd> {
        let (output, kept) = open_output(name).with_context(|| format!("cannot open standard output {name:?}"))?;
        kept_outputs.extend(kept);
        Ok(output)
    };
    let guest = GuestStreams { stdin, stdout: output(stdout)?, stderr: output(stderr)? };
    Ok((guest, KeptStreams { stdin: kept_stdin, _outputs: kept_outputs }))
}

/// Where a terminal shows what it shows.
pub(super) fn terminal_output(name: &str) -> anyhow::Result<Option<pipe::Sender>> {
    if name.is_empty() {
        return Ok(None);
    }
    // With a reader of our own, beside containerd's, which may go and come back.
    Ok(Some(pipe::OpenOptions::new().read_write(true).open_sender(local_path(name)?)?))
}

/// What is typed at a terminal, and a writer to keep it from its end.
pub(super) fn terminal_input(name: &str) -> anyhow::Result<Option<(pipe::Receiver, File)>> {
    if name.is_empty() {
        return Ok(None);
    }
    let path = local_path(name)?;
    let reader = pipe::OpenOptions::new().open_receiver(path)?;
    Ok(Some((reader, File::options().write(true).open(path)?)))
}

fn open_input(name: &str) -> anyhow::Result<(OwnedFd, Option<File>)> {
    if name.is_empty() {
        return Ok((File::open("/dev/null")?.into(), None));
    }
    let path = local_path(name)?;
    // Neither open waits for the other end: a reader without NONBLOCK would wait for a writer.
    let read = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let kept = if is_fifo(&read)? { Some(File::options().write(true).open(path)?) } else { None };
    Ok((blocking(read)?, kept))
}

fn open_output(name: &str) -> anyhow::Result<(OwnedFd, Option<File>)> {
    if name.is_empty() {
        return Ok((File::options().write(true).open("/dev/null")?.into(), None));
    }
    let path = local_path(name)?;
    if !path.exists() {
        // A log file that is ours to make.
        return Ok((File::options().append(true).create(true).mode(0o640).open(path)?.into(), None));
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut write = OpenOptions::new();
    write.append(true).custom_flags(nonblocking);
    if !path.metadata()?.file_type().is_fifo() {
        return Ok((blocking(write.open(path)?)?, None));
    }
    let kept = File::options().read(true).custom_flags(nonblocking).open(path)?;
    Ok((blocking(write.open(path)?)?, Some(kept)))
}

/// Opens a log, which containerd reads from a FIFO. Without a reader, as long as containerd is away, that is an error: another open
/// would wait for one, and this process with it.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    Ok(blocking(File::options().write(true).custom_flags(nonblocking).open(path)?)?.into())
}

/// The path of a plain name or of `file://`.
fn local_path(name: &str) -> anyhow::Result<&Path> {
    match name.split_once("://") {
        None => Ok(Path::new(name)),
        Some(("file" | "fifo", path)) => Ok(Path::new(path)),
        Some((scheme, _)) => bail!("the scheme {scheme} is not supported; fifo and file are"),
    }
}

fn is_fifo(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.file_type().is_fifo())
}

/// A file that was opened without waiting for its other end, and will be waited for from now on.
fn blocking(file: File) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file.into())
}
