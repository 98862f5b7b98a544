//! Memories and stacks of guests, which are used again.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;
use wasmtime::{LinearMemory, MemoryCreator, MemoryType, StackCreator, StackMemory};

use crate::guest_memory::{GuestMemory, SpareMemories};

/// How many stacks wait for a guest, at most.
const MOST_SPARE_STACKS: usize = 64;

#[derive(Default)]
pub(super) struct KeptMemories(SpareMemories);

// SAFETY: a memory is zeros, never moves, and has at least the guard behind it that is asked for.
#[expect(unsafe_code, reason = "see above")]
unsafe impl MemoryCreator for KeptMemories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let capacity = reserved.or(maximum).unwrap_or(minimum);
        let memory = self.0.take_or_map(capacity + guard, minimum).map_err(|error| error.to_string())?;
        Ok(Box::new(DefinedMemory { memory, capacity }))
    }
}

/// A memory that a module defines.
struct DefinedMemory {
    memory: GuestMemory,
    capacity: usize,
}

// SAFETY: as for the creator.
#[expect(unsafe_code, reason = "see above")]
unsafe impl LinearMemory for DefinedMemory {
    fn byte_size(&self) -> usize {
        self.memory.accessible()
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, bytes: usize) -> wasmtime::Result<()> {
        Ok(self.memory.resize(bytes)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.memory.base().as_ptr()
    }
}

/// Stacks without a guest. What is on them no guest can see.
#[derive(Clone, Default)]
pub(super) struct KeptStacks(Arc<Mutex<Vec<Stack>>>);

// SAFETY: a stack is a mapping of its own, of whole pages, with a guard page below.
#[expect(unsafe_code, reason = "see above")]
unsafe impl StackCreator for KeptStacks {
    fn new_stack(&self, bytes: usize, zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let spare = spare.filter(|spare| spare.range().len() == bytes && !zeroed);
        let mut stack = spare.map_or_else(|| Stack::map(bytes), Ok)?;
        stack.home = Some(self.clone());
        Ok(Box::new(stack))
    }
}

struct Stack {
    /// Where its guard page begins.
    base: usize,
    /// With the guard page.
    bytes: usize,
    /// Where it goes when its guest is gone.
    home: Option<KeptStacks>,
}

impl Stack {
    fn map(bytes: usize) -> io::Result<Self> {
        let bytes = bytes + page_size();
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the mapping is new, and where the kernel has a place for it.
        #[expect(unsafe_code, reason = "see above")]
        let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), flags) }?;
        let stack = Self { base: base.addr(), bytes, home: None };
        let usable = stack.range();
        // SAFETY: this is a part of the new mapping.
        #[expect(unsafe_code, reason = "see above")]
        unsafe { mprotect(usable.start as *mut c_void, usable.len(), MprotectFlags::READ | MprotectFlags::WRITE) }?;
        Ok(stack)
    }
}

// SAFETY: as for the creator.
#[expect(unsafe_code, reason = "see above")]
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.range().end as *mut u8
    }

    fn range(&self) -> Range<usize> {
        self.base + page_size()..self.base + self.bytes
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.base as *mut u8..self.range().start as *mut u8
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut spare = home.0.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < MOST_SPARE_STACKS {
                spare.push(Self { home: None, ..*self });
                return;
            }
        }
        // SAFETY: the mapping is this value's own, and nobody runs on it.
        #[expect(unsafe_code, reason = "see above")]
        let _ = unsafe { munmap(self.base as *mut c_void, self.bytes) };
    }
}
