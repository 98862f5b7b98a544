//! What cannot run says so before anything runs.

use anyhow::ensure;
use engines::engine::compile_and_load;
use engines::module_info::{ModuleError, ModuleInfo};

use crate::guest::{Program, Subject, wat};
use crate::runner::{Case, cases};

pub(super) fn cases() -> Vec<Case> {
    [
        cases! {
            "modules", Program::Rust("hello");
            a_truncated_module_is_refused,
            what_is_no_module_is_refused,
            one_module_has_many_guests,
        },
        cases! { "modules", wat!("component"); a_wasm_component_is_refused_by_its_name },
        cases! { "modules", wat!("unknown-import"); an_unknown_import_is_named },
        cases! { "modules", wat!("wrong-import-type"); an_import_of_another_type_is_named },
        cases! { "modules", wat!("wrong-wasi-type"); an_import_of_another_type_of_wasi_is_named },
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The error that a container with this program would fail with, which the engine itself must refuse as well.
fn refusal(subject: &Subject) -> anyhow::Result<ModuleError> {
    let bytes = subject.program.bytes()?;
    ensure!(compile_and_load(subject.engine(), &bytes).is_err(), "the engine takes it");
    match ModuleInfo::read(&bytes) {
        Ok(_) => anyhow::bail!("nothing is wrong with it"),
        Err(error) => Ok(error),
    }
}

async fn a_truncated_module_is_refused(subject: Subject) -> anyhow::Result<()> {
    let bytes = subject.program.bytes()?;
    for length in [9, 100, bytes.len() / 2, bytes.len() - 1] {
        ensure!(subject.engine().compile(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
    }
    Ok(())
}

async fn what_is_no_module_is_refused(subject: Subject) -> anyhow::Result<()> {
    let mut newer = subject.program.bytes()?;
    newer[4] = 2;
    for bytes in [b"".as_slice(), b"\0asm", b"#!/bin/sh\necho hello\n", b"\x7fELF\x02\x01\x01", &newer] {
        let refused = subject.engine().compile(bytes).map(drop);
        let Err(error) = refused else { anyhow::bail!("it takes {:?}", bytes.get(..8)) };
        ensure!(error.to_string().starts_with(&format!("{} cannot compile the module: ", subject.engine().name())));
    }
    Ok(())
}

async fn one_module_has_many_guests(subject: Subject) -> anyhow::Result<()> {
    let mut guests = tokio::task::JoinSet::new();
    for index in 0..100 {
        guests.spawn(subject.guest()?.args(&["hello", "echo", &index.to_string()]).start());
    }
    let mut printed = Vec::new();
    while let Some(ended) = guests.join_next().await {
        printed.push(String::from_utf8(ended??.success()?)?.trim_end().parse::<usize>()?);
    }
    printed.sort_unstable();
    ensure!(printed.iter().copied().eq(0..100), "{printed:?}");
    Ok(())
}

async fn a_wasm_component_is_refused_by_its_name(subject: Subject) -> anyhow::Result<()> {
    let refusal = refusal(&subject)?.to_string();
    ensure!(refusal.starts_with("is a Wasm component, which is not supported yet"), "{refusal}");
    Ok(())
}

async fn an_unknown_import_is_named(subject: Subject) -> anyhow::Result<()> {
    let refusal = refusal(&subject)?.to_string();
    let missing = "imports what nobody provides: dapr:actors/actor.invoke, env.memory (not a function); known are ";
    let known = ["wasi_snapshot_preview1.*", "dapr:state/state-interface.get", "dapr:http/http-client.send"];
    ensure!(refusal.starts_with(missing) && known.iter().all(|name| refusal.contains(name)), "{refusal}");
    Ok(())
}

async fn an_import_of_another_type_is_named(subject: Subject) -> anyhow::Result<()> {
    let refusal = refusal(&subject)?.to_string();
    let expected = "imports dapr:state/state-interface.get as (i64) -> (), \
                    but it is (i32 i32 i32 i32 i32 i32 i32 i32 i32) -> ()";
    ensure!(refusal == expected, "{refusal}");
    Ok(())
}

async fn an_import_of_another_type_of_wasi_is_named(subject: Subject) -> anyhow::Result<()> {
    let loaded = compile_and_load(subject.engine(), &subject.program.bytes()?);
    let Err(error) = loaded else { anyhow::bail!("the engine takes it") };
    ensure!(error.to_string().contains("proc_exit"), "{error}");
    Ok(())
}
