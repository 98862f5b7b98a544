//! A guest host whose compiler does what its module says: what an attacker could who has taken it over. The artifact
//! says what came of it, and is all that its guests print. For the tests of what a compiler may do.

use std::ffi::c_int;
use std::fs::{self, File};
use std::hint;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::process::{self, Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use engines::artifact_cache::Artifact;
use engines::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop, WasiConfig};
use host_abi::canonical::ExportCall;
use nix::sys::signal::kill;
use nix::unistd::{Pid, setuid};
use shim::guest_host::GuestHost;

/// The name of the custom section, the module's last, that says what to do.
const SECTION: &str = "attempt";

fn main() -> ExitCode {
    GuestHost::new().engine(Arc::new(Hostile)).main()
}

struct Hostile;

impl Engine for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn fingerprint(&self) -> String {
        "1".to_owned()
    }

    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError> {
        let text = String::from_utf8_lossy(module);
        let what = text.split(SECTION).nth(1).unwrap_or_default();
        match attempt(what) {
            Ok(()) => Ok(format!("{what}: done").into_bytes()),
            Err(error) if what == "say a lot" => Err(CompileError { engine: "hostile", reason: error.to_string() }),
            Err(error) => Ok(format!("{what}: {error}").into_bytes()),
        }
    }

    #[expect(unsafe_code, reason = "the contract says so; nothing here depends on the artifact's safety")]
    unsafe fn load(&self, artifact: &Artifact) -> Result<Arc<dyn Module>, LoadError> {
        let broken = |error: io::Error| LoadError { engine: self.name(), reason: error.to_string() };
        let report = artifact.map().map_err(broken)?;
        Ok(Arc::new(Report(String::from_utf8_lossy(&report).into_owned())))
    }
}

fn attempt(what: &str) -> io::Result<()> {
    match what {
        "read a file" => fs::read("/etc/passwd").map(drop),
        "read a folder" => fs::read_dir("/proc").map(drop),
        "write a file" => File::create("/tmp/written-by-a-compiler").map(drop),
        "look for a file" => fs::metadata("/etc/passwd").map(drop),
        "connect" => TcpStream::connect("127.0.0.1:1").map(drop),
        "execute" => Command::new("/bin/true").status().map(drop),
        "signal" => Ok(kill(Pid::from_raw(1), None)?),
        "become root" => Ok(setuid(0.into())?),
        "share memory" => share_memory(),
        "use threads" => thread::spawn(|| ()).join().map_err(|_| io::Error::other("it panicked")),
        "allocate" => {
            hint::black_box(vec![1_u8; 10 << 30]);
            Ok(())
        }
        "answer without end" => loop {
            io::stdout().write_all(&[0; 1 << 16])?;
        },
        "say a lot" => Err(io::Error::other("a lot, ".repeat(1 << 18))),
        "tell its id" => {
            // Long enough for others to ask for the same artifact.
            thread::sleep(Duration::from_millis(200));
            Err(io::Error::other(process::id().to_string()))
        }
        "loop" => loop {
            hint::spin_loop();
        },
        _ => Err(io::Error::other("nobody knows how")),
    }
}

/// Memory that is shared is not counted as the process's own.
fn share_memory() -> io::Result<()> {
    let (protection, flags): (c_int, c_int) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, wherever the kernel finds room, is nobody else's memory.
    #[expect(unsafe_code, reason = "see above")]
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

struct Report(String);

#[async_trait]
impl Module for Report {
    async fn instantiate(&self, guest: GuestConfig) -> Result<Box<dyn Instance>, Stop> {
        Ok(Box::new(Reporter { report: self.0.clone(), wasi: guest.wasi }))
    }
}

struct Reporter {
    report: String,
    wasi: Arc<WasiConfig>,
}

#[async_trait]
impl Instance for Reporter {
    async fn run(&mut self, _: &str) -> Result<(), Stop> {
        writeln!(&*self.wasi.stdout, "{}", self.report).map_err(|_| Stop::Exit(1))
    }

    async fn call(&mut self, _: &mut dyn ExportCall) -> Result<(), Stop> {
        Err(Stop::Exit(2))
    }
}
