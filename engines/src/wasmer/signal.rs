//! SIGUSR1, by which wasmer interrupts a guest, kept apart from the SIGUSR1 that others send.
//!
//! wasmer takes every such signal for its own, and aborts the process if it is not. Another listener in this process
//! would get wasmer's signals. So one handler stands before both: it gives wasmer what this process sent to one of its
//! own threads, and the other listener the rest.
//!
//! wasmer also unwinds whatever it finds on a guest's stack, even host code that holds a lock, which nobody would
//! release. So it is shown the stack only while the guest's own code runs. From anywhere else, it looks for the interrupt
//! when it returns to that code, or gets the next signal. Only its bulk operations do not look: see [`lengths`].

use std::cell::Cell;
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::process;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once, OnceLock};

use nix::libc::{
    SI_TKILL, c_int, c_void, mcontext_t, pthread_attr_destroy, pthread_attr_getstack, pthread_getattr_np, pthread_self,
    siginfo_t, ucontext_t,
};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use wasmer::{Engine, Store};

use super::lengths;

static WASMER: OnceLock<SigHandler> = OnceLock::new();
/// Who listened before the first store was made.
static EARLIER: OnceLock<SigHandler> = OnceLock::new();
/// Who came after that.
static LATER: OnceLock<SigHandler> = OnceLock::new();

thread_local! {
    /// Of the guest that lives on this thread: from, and to.
    static GUEST_CODE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// Of a thread that guests live on: from, and to. wasmer has their calls on other stacks.
    static HOST_STACK: Cell<(usize, usize)> = const { Cell::new((0, usize::MAX)) };
}

/// Where the native code of a module is.
pub(super) fn code(module: &wasmer::Module) -> Range<usize> {
    let functions = module.sys_artifact().and_then(|artifact| artifact.finished_function_extents()).unwrap_or_default();
    let start = functions.iter().map(|(_, function)| function.ptr.0.addr()).min().unwrap_or_default();
    let end = functions.iter().map(|(_, function)| function.ptr.0.addr() + function.length).max().unwrap_or_default();
    start..end
}

/// To be called once on a thread that guests are going to live on.
pub(super) fn prepare_thread() {
    if let Some(stack) = own_stack() {
        HOST_STACK.set((stack.start, stack.end));
    }
}

/// Where the stack of this thread is.
fn own_stack() -> Option<Range<usize>> {
    let (mut attributes, mut start, mut bytes) = (MaybeUninit::uninit(), null_mut(), 0);
    // SAFETY: the attributes are initialized by the first call if it succeeds, and destroyed by the last.
    #[expect(unsafe_code, reason = "see above")]
    let got = unsafe {
        if pthread_getattr_np(pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let got = pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut bytes);
        pthread_attr_destroy(attributes.as_mut_ptr());
        got
    };
    (got == 0).then(|| start.addr()..start.addr() + bytes)
}

/// To be called before a guest is made on this thread: what its code is, and what says that it was interrupted.
pub(super) fn prepare_guest(code: &Range<usize>, interrupted: Arc<AtomicBool>) {
    GUEST_CODE.set((code.start, code.end));
    lengths::of_new_guest(interrupted);
}

/// A new store.
pub(super) fn store(engine: &Engine) -> Store {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        let _ = EARLIER.set(handle(SigHandler::SigIgn));
        // Has wasmer set its handlers.
        drop(Store::new(engine.clone()));
        let _ = WASMER.set(handle(OURS));
    });
    let last = handle(OURS);
    if last != OURS {
        let _ = LATER.set(last);
    }
    Store::new(engine.clone())
}

const OURS: SigHandler = SigHandler::SigAction(on_signal);

/// Sets the handler; answers the one until now.
fn handle(handler: SigHandler) -> SigHandler {
    let action = SigAction::new(handler, SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: `on_signal` does only what a signal handler may.
    #[expect(unsafe_code, reason = "see above")]
    match unsafe { sigaction(Signal::SIGUSR1, &action) } {
        Ok(until_now) => until_now.handler(),
        Err(error) => unreachable!("SIGUSR1 can be handled: {error}"),
    }
}

/// Who listens since the first store may itself pass the signal on, to this handler.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    thread_local! {
        static PASSED_ON: Cell<bool> = const { Cell::new(false) };
    }
    // SAFETY: the kernel hands valid information to a handler that asks for it. Of the context, nothing but the
    // registers is looked at: the kernel's frame may be shorter than the C library's type for it.
    #[expect(unsafe_code, reason = "see above")]
    let (code, sender, registers) =
        unsafe { ((*info).si_code, (*info).si_pid(), &raw mut (*context.cast::<ucontext_t>()).uc_mcontext) };
    if code == SI_TKILL && sender.cast_unsigned() == process::id() {
        let (start, end) = GUEST_CODE.get();
        // SAFETY: they are there until this handler returns, and `call` is not running.
        #[expect(unsafe_code, reason = "see above")]
        let hidden = match unsafe { &mut *registers } {
            registers if (start..end).contains(&instruction(registers)) => None,
            registers => Some(mem::replace(stack(registers), 0)),
        };
        if let Some(pointer) = hidden
            && is_on_a_guests_stack(pointer as usize)
        {
            // SAFETY: wasmer leaves a guest's stack with the end of its call.
            #[expect(unsafe_code, reason = "see above")]
            unsafe {
                lengths::take_if_interrupted();
            }
        }
        call(&WASMER, signal, info, context);
        if let Some(pointer) = hidden {
            // SAFETY: as above.
            #[expect(unsafe_code, reason = "see above")]
            unsafe {
                *stack(&mut *registers) = pointer;
            }
        }
    } else if !PASSED_ON.replace(true) {
        let listener = if LATER.get().is_some() { &LATER } else { &EARLIER };
        call(listener, signal, info, context);
        PASSED_ON.set(false);
    }
}

fn is_on_a_guests_stack(pointer: usize) -> bool {
    let (start, end) = HOST_STACK.get();
    !(start..end).contains(&pointer)
}

fn call(handler: &OnceLock<SigHandler>, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    match handler.get() {
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigDfl | SigHandler::SigIgn) | None => {}
    }
}

cfg_select! {
    target_arch = "x86_64" => {
        fn instruction(registers: &mcontext_t) -> usize {
            registers.gregs[nix::libc::REG_RIP as usize] as usize
        }

        fn stack(registers: &mut mcontext_t) -> &mut i64 {
            &mut registers.gregs[nix::libc::REG_RSP as usize]
        }
    }
    target_arch = "aarch64" => {
        fn instruction(registers: &mcontext_t) -> usize {
            registers.pc as usize
        }

        fn stack(registers: &mut mcontext_t) -> &mut u64 {
            &mut registers.sp
        }
    }
}
