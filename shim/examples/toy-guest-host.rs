//! A guest host with an engine of its own. The engine is a toy: instead of running a module it says how long it is.
//! docs/engines.md explains the rest.

use std::io::{Error, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use engines::artifact_cache::Artifact;
use engines::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop, WasiConfig};
use host_abi::canonical::ExportCall;
use shim::guest_host::GuestHost;

fn main() -> ExitCode {
    GuestHost::new().engine(Arc::new(Toy)).main()
}

struct Toy;

impl Engine for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn fingerprint(&self) -> String {
        "1".to_owned()
    }

    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError> {
        Ok(module.len().to_string().into_bytes())
    }

    #[expect(unsafe_code, reason = "the contract says so; nothing here depends on the artifact's safety")]
    unsafe fn load(&self, artifact: &Artifact) -> Result<Arc<dyn Module>, LoadError> {
        let broken = |error: Error| LoadError { engine: self.name(), reason: error.to_string() };
        let length = artifact.map().map_err(broken)?;
        Ok(Arc::new(Length(String::from_utf8_lossy(&length).into_owned())))
    }
}

struct Length(String);

#[async_trait]
impl Module for Length {
    async fn instantiate(&self, guest: GuestConfig) -> Result<Box<dyn Instance>, Stop> {
        Ok(Box::new(Speaker { length: self.0.clone(), wasi: guest.wasi }))
    }
}

struct Speaker {
    length: String,
    wasi: Arc<WasiConfig>,
}

#[async_trait]
impl Instance for Speaker {
    async fn run(&mut self, export: &str) -> Result<(), Stop> {
        let spoken = writeln!(&*self.wasi.stdout, "{export} of a module of {} bytes", self.length);
        spoken.map_err(|_| Stop::Exit(1))
    }

    async fn call(&mut self, _: &mut dyn ExportCall) -> Result<(), Stop> {
        Err(Stop::Exit(2))
    }
}
