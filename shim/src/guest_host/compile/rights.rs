//! What a compiler does without: a module may be made to take it over.

use std::fs;
use std::process;

use anyhow::Context as _;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::inheritance::end_with;

/// No user of a node has these numbers: they are above those that are given to people, services and containers.
/// With its process id added, each compiler is a user of its own, so that its threads alone count.
const FIRST_USER: u32 = 2_000_000_000;
/// Where a node's users end at 65535: it may be a container itself, in a user namespace.
const NOBODY: u32 = 65_534;
const MAX_THREADS: u64 = 1024;

/// All that a compiler may ask of the kernel: memory, threads, and to read and write what is open.
const ALLOWED: [&str; 27] = [
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "madvise",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "read",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "write",
    "writev",
];

/// Gives up every right but memory, threads and the descriptors that are open, for good. To be called while the
/// process has one thread, before anything of the module is read. From then on it ends with `parent`.
///
/// # Errors
/// A right cannot be given up, or the parent has ended: nothing may be compiled.
pub(super) fn give_up(max_memory_bytes: u64, parent: i32) -> anyhow::Result<()> {
    // Where a node runs out of memory, this process is the first to go.
    fs::write("/proc/self/oom_score_adj", "1000").context("cannot offer the compiler to the OOM killer")?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nproc, MAX_THREADS)?;
    limit(Resource::Data, max_memory_bytes)?;
    // Of what it writes; files in memory are no part of its data.
    limit(Resource::Fsize, max_memory_bytes)?;
    set_thread_groups(&[]).context("cannot leave the groups of root")?;
    // All capabilities go with the user root.
    become_user(FIRST_USER + process::id())
        .or_else(|_| become_user(NOBODY))
        .context("cannot become a user without rights")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Forgotten at a change of the user.
    end_with(parent).context("nobody waits for the compiler any more")?;
    set_no_new_privs(true)?;
    filter().and_then(|filter| filter.load()).context("cannot load the compiler's seccomp filter")
}

fn become_user(number: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn limit(resource: Resource, most: u64) -> anyhow::Result<()> {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, limit).with_context(|| format!("cannot limit {resource:?} to {most}"))
}

/// Everything else is refused, not deadly: whoever looks for the number of processors tries files first.
fn filter() -> Result<ScmpFilterContext, libseccomp::error::SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::EPERM))?;
    for name in ALLOWED {
        filter.add_rule(ScmpAction::Allow, ScmpSyscall::from_name(name)?)?;
    }
    for (name, conditions) in conditional() {
        filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name(name)?, &conditions)?;
    }
    // Its flags are in memory, where no filter sees them. glibc takes the older call instead.
    filter.add_rule(ScmpAction::Errno(libc::ENOSYS), ScmpSyscall::from_name("clone3")?)?;
    Ok(filter)
}

/// Calls that are allowed for some purposes.
fn conditional() -> [(&'static str, Vec<ScmpArgCompare>); 5] {
    let threads = libc::CLONE_THREAD | libc::CLONE_VM;
    let namespaces = libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS;
    [
        ("clone", vec![has_bits(0, threads | namespaces, threads)]),
        // Shared and growing memory is not counted as data.
        ("mmap", vec![has_bits(3, libc::MAP_TYPE | libc::MAP_GROWSDOWN, libc::MAP_PRIVATE)]),
        // To name a thread.
        ("prctl", vec![equals(0, libc::PR_SET_NAME.unsigned_abs().into())]),
        // To read a limit.
        ("prlimit64", vec![equals(0, 0), equals(2, 0)]),
        // To abort.
        ("tgkill", vec![equals(0, process::id().into())]),
    ]
}

fn equals(argument: u32, value: u64) -> ScmpArgCompare {
    ScmpArgCompare::new(argument, ScmpCompareOp::Equal, value)
}

fn has_bits(argument: u32, mask: i32, bits: i32) -> ScmpArgCompare {
    let [mask, bits] = [mask, bits].map(|flags| u64::from(flags.cast_unsigned()));
    ScmpArgCompare::new(argument, ScmpCompareOp::MaskedEqual(mask), bits)
}
