//! Traps: the same kind and the same words on every engine, and nobody else is the worse for it.

use anyhow::{Context as _, ensure};
use engines::engine::{Stop, TrapKind};

use crate::guest::{Program, Subject, wat};
use crate::runner::{Case, cases};

const TRAPS: Program = wat!("traps");

/// Exports of the guest, and the trap that each is.
const KINDS: &[(&str, TrapKind)] = &[
    ("unreachable", TrapKind::Unreachable),
    ("recursion", TrapKind::StackOverflow),
    ("load-past-the-end", TrapKind::MemoryOutOfBounds),
    ("store-past-the-end", TrapKind::MemoryOutOfBounds),
    ("load-with-an-offset-that-wraps", TrapKind::MemoryOutOfBounds),
    ("copy-past-the-end", TrapKind::MemoryOutOfBounds),
    ("fill-past-the-end", TrapKind::MemoryOutOfBounds),
    ("call-past-the-table", TrapKind::TableOutOfBounds),
    ("read-past-the-table", TrapKind::TableOutOfBounds),
    ("call-of-null", TrapKind::IndirectCallToNull),
    ("call-with-another-type", TrapKind::BadSignature),
    ("divide-by-zero", TrapKind::IntegerDivisionByZero),
    ("remainder-by-zero", TrapKind::IntegerDivisionByZero),
    ("divide-the-smallest-by-minus-one", TrapKind::IntegerOverflow),
    ("divide-the-smallest-wide-by-minus-one", TrapKind::IntegerOverflow),
    ("convert-a-huge-number", TrapKind::IntegerOverflow),
    ("convert-no-number", TrapKind::BadConversionToInteger),
    ("no-such-export", TrapKind::MissingExport),
    ("wants-a-number", TrapKind::MissingExport),
];

/// What is near a trap and is none.
const NO_TRAPS: &[&str] = &[
    "return",
    "load-at-the-end",
    "load-from-memory-that-grew",
    "call-through-the-table",
    "remainder-of-the-smallest-by-minus-one",
    "convert-no-number-and-saturate",
];

pub(super) fn cases() -> Vec<Case> {
    let kind = |&(export, kind): &(&'static str, TrapKind)| {
        Case::new("traps", export.replace('-', "_"), TRAPS, move |subject| has_kind(subject, export, kind))
    };
    let mut cases: Vec<Case> = KINDS.iter().map(kind).collect();
    cases.extend(cases! {
        "traps", TRAPS;
        what_is_near_a_trap_is_none,
        a_trap_names_the_functions_of_the_guest,
        the_next_instance_is_none_the_worse,
        many_guests_trap_at_once,
    });
    cases.extend(cases! { "traps", wat!("start-trap"); a_trap_in_the_start_function_is_the_guests });
    cases.extend(cases! { "traps", Program::Rust("hello"); a_program_that_aborts_traps });
    cases
}

async fn has_kind(subject: Subject, export: &'static str, kind: TrapKind) -> anyhow::Result<()> {
    let trap = subject.guest()?.run(export).await?.trap()?;
    ensure!(trap.kind == kind, "{trap}");
    let says_its_kind = trap.to_string().starts_with(&format!("trap: {kind}"));
    ensure!(says_its_kind, "{trap}");
    Ok(())
}

async fn what_is_near_a_trap_is_none(subject: Subject) -> anyhow::Result<()> {
    for export in NO_TRAPS {
        subject.guest()?.run(export).await?.success().context(*export)?;
    }
    Ok(())
}

async fn a_trap_names_the_functions_of_the_guest(subject: Subject) -> anyhow::Result<()> {
    let trap = subject.guest()?.run("three-deep").await?.trap()?;
    // The exported function has no name of its own in the module.
    let backtrace = trap.backtrace.context("no backtrace")?;
    let lines: Vec<_> = backtrace.lines().collect();
    ensure!(lines.len() == 3 && lines[..2] == ["  at innermost", "  at middle"], "{backtrace}");
    Ok(())
}

async fn the_next_instance_is_none_the_worse(subject: Subject) -> anyhow::Result<()> {
    for (export, _) in KINDS {
        subject.guest()?.run(export).await?.trap()?;
        subject.guest()?.run("load-at-the-end").await?.success().with_context(|| format!("after {export}"))?;
    }
    Ok(())
}

async fn many_guests_trap_at_once(subject: Subject) -> anyhow::Result<()> {
    let mut guests = tokio::task::JoinSet::new();
    for (export, kind) in KINDS.iter().cycle().take(10 * KINDS.len()) {
        guests.spawn(has_kind(subject.clone(), export, *kind));
    }
    while let Some(ended) = guests.join_next().await {
        ended??;
    }
    Ok(())
}

async fn a_trap_in_the_start_function_is_the_guests(subject: Subject) -> anyhow::Result<()> {
    let trap = subject.guest()?.start().await?.trap()?;
    ensure!(trap.kind == TrapKind::Unreachable, "{trap}");
    Ok(())
}

async fn a_program_that_aborts_traps(subject: Subject) -> anyhow::Result<()> {
    let ended = subject.guest()?.args(&["hello", "trap"]).start().await?;
    ensure!(matches!(&ended.stopped, Err(Stop::Trap(trap)) if trap.kind == TrapKind::Unreachable), "{ended:?}");
    let trap = ended.trap()?;
    ensure!(trap.backtrace.as_ref().is_some_and(|backtrace| backtrace.contains("abort")), "{trap}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new kind does not compile until somebody decides where it is tested.
    fn is_tested_here(kind: TrapKind) -> bool {
        match kind {
            TrapKind::Unreachable
            | TrapKind::StackOverflow
            | TrapKind::MemoryOutOfBounds
            | TrapKind::TableOutOfBounds
            | TrapKind::IndirectCallToNull
            | TrapKind::BadSignature
            | TrapKind::IntegerOverflow
            | TrapKind::IntegerDivisionByZero
            | TrapKind::BadConversionToInteger
            | TrapKind::MissingExport => true,
            // The group `memory`.
            TrapKind::HostAbi => false,
            // No engine here takes atomic instructions, and `Other` is what no module can ask for.
            TrapKind::UnalignedAtomic | TrapKind::Other => false,
        }
    }

    #[test]
    fn every_trap_tested_here_is_of_a_kind_that_is() {
        assert!(KINDS.iter().all(|(_, kind)| is_tested_here(*kind)));
    }
}
