//! The lengths of a guest's memories and tables, by which its bulk operations (`memory.fill`, `table.copy` and the like) are
//! checked.
//!
//! Such an operation is the host's code, where an interrupt does not reach the guest. A guest that does little else is
//! hardly ever in its own code when an interrupt comes. So an interrupt sets the lengths to zero: the next operation is out
//! of bounds.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmer::sys::vm::{VMMemoryDefinition, VMTableDefinition};

/// Where an instance has the length of one of its memories or tables.
enum Length {
    Memory(NonNull<VMMemoryDefinition>),
    Table(NonNull<VMTableDefinition>),
}

#[derive(Default)]
struct Lengths {
    interrupted: Arc<AtomicBool>,
    all: Vec<Length>,
}

thread_local! {
    /// Of the guest that lives on this thread. Borrowed on the thread's own stack alone.
    static LENGTHS: RefCell<Lengths> = RefCell::default();
}

/// To be called before a guest is made on this thread, with what says that it was interrupted.
pub(super) fn of_new_guest(interrupted: Arc<AtomicBool>) {
    LENGTHS.with_borrow_mut(|lengths| lengths.interrupted = interrupted);
}

/// A memory of the guest that is being made on this thread.
pub(super) fn add_memory(definition: NonNull<VMMemoryDefinition>) {
    LENGTHS.with_borrow_mut(|lengths| lengths.all.push(Length::Memory(definition)));
}

/// A table of the guest that is being made on this thread.
pub(super) fn add_table(definition: NonNull<VMTableDefinition>) {
    LENGTHS.with_borrow_mut(|lengths| lengths.all.push(Length::Table(definition)));
}

/// Whether the guest of this thread was interrupted.
pub(super) fn are_taken() -> bool {
    LENGTHS.with_borrow(|lengths| lengths.interrupted.load(Ordering::Relaxed))
}

/// To be called before the guest of this thread goes.
pub(super) fn forget() {
    LENGTHS.with_borrow_mut(|lengths| lengths.all.clear());
}

/// Takes the lengths away if the guest was interrupted. In a signal's handler, which may have come between any two
/// instructions. wasmer reads each length once in an operation, but for `memory.init`, which goes by the memory's own.
///
/// # Safety
/// The guest of this thread is in a call: it stands on a stack of its own, below whatever was interrupted.
#[expect(unsafe_code, reason = "see above")]
pub(super) unsafe fn take_if_interrupted() {
    // The value is there since the guest was made, so that nothing is allocated here.
    let _ = LENGTHS.try_with(|lengths| {
        // Whoever borrows them does so on the other stack.
        let Ok(lengths) = lengths.try_borrow() else { return };
        if !lengths.interrupted.load(Ordering::Relaxed) {
            return;
        }
        for length in &lengths.all {
            // SAFETY: an instance with a guest in a call has its definitions; no other thread uses them. Whoever looks at
            // them meanwhile, on this thread, sees the length before or none.
            unsafe {
                match length {
                    Length::Memory(memory) => (&raw mut (*memory.as_ptr()).current_length).write_volatile(0),
                    Length::Table(table) => (&raw mut (*table.as_ptr()).current_elements).write_volatile(0),
                }
            }
        }
    });
}
