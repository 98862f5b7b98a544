//! WASI preview 1 through wasmtime-wasi.

use wasmtime::Linker;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use super::guest::GuestState;
use super::read_only;
use super::streams::{Input, Output};
use crate::engine::WasiConfig;

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    add_to_linker_async(linker, |state| &mut state.wasi)?;
    // wasmtime-wasi's own refuses codes from 126 on.
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(I32Exit(code.cast_signed()).into())
    })?;
    read_only::link(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

pub(super) fn context(config: WasiConfig) -> wasmtime::Result<WasiP1Ctx> {
    let WasiConfig { args, env, stdin, stdout, stderr, preopens } = config;
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&args).envs(&env).stdin(Input::new(stdin)).stdout(Output::new(stdout)).stderr(Output::new(stderr));
    for preopen in preopens {
        wasi.preopened_dir(preopen.host, preopen.guest, FsPerms::ReadWrite)?;
    }
    Ok(wasi.build_p1())
}
