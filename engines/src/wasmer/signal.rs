//! SIGUSR1, by which wasmer interrupts a guest, kept apart from the SIGUSR1 that others send.
//!
//! wasmer takes each one for its own and aborts the process if it is not; and who else listens for the signal in this
//! process would hear wasmer's. So one handler stands before both: what this process sent to one of its own threads
//! is wasmer's, the rest is not.

use std::cell::Cell;
use std::process;
use std::sync::{Once, OnceLock};

use nix::libc::{SI_TKILL, c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use wasmer::{Engine, Store};

static WASMER: OnceLock<SigHandler> = OnceLock::new();
/// Who listened before the first store was made.
static EARLIER: OnceLock<SigHandler> = OnceLock::new();
/// Who came after that.
static LATER: OnceLock<SigHandler> = OnceLock::new();

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
    // SAFETY: the kernel hands valid information to a handler that asks for it.
    #[expect(unsafe_code, reason = "see above")]
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    if code == SI_TKILL && sender.cast_unsigned() == process::id() {
        call(&WASMER, signal, info, context);
    } else if !PASSED_ON.replace(true) {
        let listener = if LATER.get().is_some() { &LATER } else { &EARLIER };
        call(listener, signal, info, context);
        PASSED_ON.set(false);
    }
}

fn call(handler: &OnceLock<SigHandler>, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    match handler.get() {
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigDfl | SigHandler::SigIgn) | None => {}
    }
}
