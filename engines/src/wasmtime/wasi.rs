//! WASI preview 1 through wasmtime-wasi.

use wasmtime::Linker;
use wasmtime_wasi::cli::{InputFile, OutputFile};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::guest::GuestState;
use crate::engine::WasiConfig;

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    add_to_linker_async(linker, |state| &mut state.wasi)
}

pub(super) fn context(config: WasiConfig) -> wasmtime::Result<WasiP1Ctx> {
    let WasiConfig { args, env, stdin, stdout, stderr, preopens } = config;
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&args)
        .envs(&env)
        .stdin(InputFile::new(stdin))
        .stdout(OutputFile::new(stdout))
        .stderr(OutputFile::new(stderr));
    for preopen in preopens {
        wasi.preopened_dir(preopen.host, preopen.guest, FsPerms::ReadWrite)?;
    }
    Ok(wasi.build_p1())
}
