//! WASI preview 1 through wasmtime-wasi.

use std::sync::Arc;

use wasmtime::Linker;
use wasmtime::error::Context as _;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use super::guest::GuestState;
use super::paths;
use super::streams::{Input, Output};
use crate::engine::{Preopen, WasiConfig};
use crate::wasi_preview1::MODULE;

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    add_to_linker_async(linker, |state| state.wasi.context())?;
    // wasmtime-wasi's own refuses codes from 126 on.
    linker.allow_shadowing(true);
    linker.func_wrap(MODULE, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(I32Exit(code.cast_signed()).into())
    })?;
    paths::link(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What a guest has of WASI, made when it first asks: many a request is answered without.
pub(super) struct Wasi {
    config: Arc<WasiConfig>,
    context: Option<WasiP1Ctx>,
    failure: Option<wasmtime::Error>,
}

impl Wasi {
    pub(super) fn new(config: Arc<WasiConfig>) -> Self {
        Self { config, context: None, failure: None }
    }

    /// Why the guest did not get what it was to have, which counts for more than what it did without.
    pub(super) fn failure(&mut self) -> Option<wasmtime::Error> {
        self.failure.take()
    }

    /// The directories of the host that the guest is given, by their order.
    pub(super) fn preopens(&self) -> &[Preopen] {
        &self.config.preopens
    }

    pub(super) fn context(&mut self) -> &mut WasiP1Ctx {
        self.context.get_or_insert_with(|| {
            let mut wasi = WasiCtxBuilder::new();
            self.failure = configure(&mut wasi, &self.config).err();
            wasi.build_p1()
        })
    }
}

fn configure(wasi: &mut WasiCtxBuilder, config: &WasiConfig) -> wasmtime::Result<()> {
    let WasiConfig { args, env, stdin, stdout, stderr, preopens } = config;
    wasi.args(args).envs(env);
    wasi.stdin(Input::new(stdin)).stdout(Output::new(stdout)).stderr(Output::new(stderr));
    for preopen in preopens {
        wasi.preopened_dir(&preopen.host, &preopen.guest, FsPerms::ReadWrite)
            .with_context(|| format!("cannot open {} for the guest", preopen.host.display()))?;
    }
    Ok(())
}
