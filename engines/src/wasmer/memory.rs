//! Memories of guests. A thread keeps the address space of its last guest's for the next one: to map it and to unmap it
//! takes longer than the rest of an instance.

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;

use nix::libc;
use wasmer::sys::vm::{LinearMemory, Mmap, MmapType, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition};
use wasmer::sys::{BaseTunables, Target, Tunables};
use wasmer::{MemoryError, MemoryStyle, MemoryType, Pages, TableStyle, TableType};

/// How much of its last guest's memory a thread keeps, in bytes.
const KEPT_BYTES: usize = 256 << 10;

thread_local! {
    /// All zeros.
    static KEPT: Cell<Option<Space>> = const { Cell::new(None) };
}

/// wasmer's own way to make memories and tables, but for the memories that a module defines.
pub(super) struct KeptMemories(BaseTunables);

impl KeptMemories {
    pub(super) fn new(target: &Target) -> Self {
        Self(BaseTunables::for_target(target))
    }
}

impl Tunables for KeptMemories {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.0.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.0.table_style(table)
    }

    fn create_host_memory(&self, ty: &MemoryType, style: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        self.0.create_host_memory(ty, style)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        definition: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        let memory: Box<dyn LinearMemory + Send + Sync> = match *style {
            MemoryStyle::Static { bound, offset_guard_size } => {
                let space = Space::kept_or_new(bound.bytes().0 + offset_guard_size as usize)?;
                // SAFETY: this function's own contract.
                unsafe { Box::new(GuestMemory::new(*ty, *style, space, definition)?) }
            }
            // SAFETY: this function's own contract.
            MemoryStyle::Dynamic { .. } => return unsafe { self.0.create_vm_memory(ty, style, definition) },
        };
        Ok(memory.into())
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.0.create_host_table(ty, style)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        definition: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: this function's own contract.
        unsafe { self.0.create_vm_table(ty, style, definition) }
    }
}

/// Address space for a memory, which can be read and written up to some point.
#[derive(Debug)]
struct Space {
    map: Mmap,
    accessible: usize,
}

impl Space {
    fn kept_or_new(bytes: usize) -> Result<Self, MemoryError> {
        let kept = KEPT.take().filter(|kept| kept.map.len() == bytes);
        kept.map_or_else(|| Self::new(bytes), Ok)
    }

    fn new(bytes: usize) -> Result<Self, MemoryError> {
        let map = Mmap::accessible_reserved(0, bytes, None, MmapType::Private).map_err(MemoryError::Region)?;
        Ok(Self { map, accessible: 0 })
    }

    fn resize(&mut self, accessible: usize) -> Result<(), MemoryError> {
        if accessible > self.accessible {
            let more = accessible - self.accessible;
            self.map.make_accessible(self.accessible, more).map_err(MemoryError::Region)?;
        } else if accessible < self.accessible {
            let start = self.map.as_ptr().wrapping_add(accessible).cast_mut().cast();
            // SAFETY: this is a part of the mapping, and nobody has a reference into it.
            #[expect(unsafe_code, reason = "see above")]
            let done = unsafe { libc::mprotect(start, self.accessible - accessible, libc::PROT_NONE) };
            check(done)?;
        }
        self.accessible = accessible;
        Ok(())
    }

    /// Has every byte be zero. A few pages that were touched stay, because the next guest touches the same ones; the rest
    /// goes back to the system.
    fn clear(&mut self) -> Result<(), MemoryError> {
        let page = page_size();
        let mut resident = vec![0_u8; self.accessible / page];
        let base = self.map.as_mut_ptr();
        // SAFETY: there is a byte for each page of the range, which is a part of the mapping.
        #[expect(unsafe_code, reason = "see above")]
        check(unsafe { libc::mincore(base.cast(), self.accessible, resident.as_mut_ptr()) })?;
        let mut kept = 0;
        let mut start = 0;
        for pages in resident.chunk_by(|a, b| (a ^ b) & 1 == 0) {
            let bytes = pages.len() * page;
            let range = base.wrapping_add(start);
            if pages[0] & 1 == 1 && kept + bytes <= KEPT_BYTES {
                // SAFETY: the range is accessible, and nobody has a reference into it.
                #[expect(unsafe_code, reason = "see above")]
                unsafe {
                    range.write_bytes(0, bytes);
                }
                kept += bytes;
            } else {
                // Where nothing is resident, something may still be in swap space.
                // SAFETY: as above. The mapping is private and of no file: its pages are zeros when they are next touched.
                #[expect(unsafe_code, reason = "see above")]
                check(unsafe { libc::madvise(range.cast(), bytes, libc::MADV_DONTNEED) })?;
            }
            start += bytes;
        }
        Ok(())
    }
}

fn page_size() -> usize {
    // SAFETY: it asks for a number.
    #[expect(unsafe_code, reason = "see above")]
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(wasmer::WASM_PAGE_SIZE)
}

fn check(done: libc::c_int) -> Result<(), MemoryError> {
    if done == 0 { Ok(()) } else { Err(MemoryError::Region(io::Error::last_os_error().to_string())) }
}

/// A memory that a module defines. It never moves.
#[derive(Debug)]
struct GuestMemory {
    ty: MemoryType,
    style: MemoryStyle,
    /// There until this is dropped.
    space: Option<Space>,
    /// In the instance, where its code finds it.
    definition: NonNull<VMMemoryDefinition>,
}

// SAFETY: the definition belongs to this memory's instance, and both to one store, which is used by one thread at a time.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Send for GuestMemory {}
// SAFETY: nothing is changed through a shared reference.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// # Safety
    /// The definition must be valid for as long as this memory.
    #[expect(unsafe_code, reason = "see above")]
    unsafe fn new(
        ty: MemoryType,
        style: MemoryStyle,
        mut space: Space,
        definition: NonNull<VMMemoryDefinition>,
    ) -> Result<Self, MemoryError> {
        let current_length = ty.minimum.bytes().0;
        space.resize(current_length)?;
        // SAFETY: this function's own contract.
        unsafe { definition.write(VMMemoryDefinition { base: space.map.as_mut_ptr(), current_length }) };
        Ok(Self { ty, style, space: Some(space), definition })
    }

    fn bytes(&self) -> usize {
        // SAFETY: by the contract of `new`.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            self.definition.as_ref().current_length
        }
    }
}

impl LinearMemory for GuestMemory {
    fn ty(&self) -> MemoryType {
        MemoryType { minimum: self.size(), ..self.ty }
    }

    fn size(&self) -> Pages {
        Pages((self.bytes() / wasmer::WASM_PAGE_SIZE) as u32)
    }

    fn style(&self) -> MemoryStyle {
        self.style
    }

    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        let current = self.size();
        let refused = MemoryError::CouldNotGrow { current, attempted_delta: delta };
        let most = self.ty.maximum.unwrap_or(Pages::max_value()).min(Pages::max_value());
        let grown = current.checked_add(delta).filter(|grown| *grown <= most).ok_or(refused)?.bytes().0;
        if let Some(space) = self.space.as_mut().filter(|_| delta.0 > 0) {
            space.resize(grown)?;
            // SAFETY: by the contract of `new`.
            #[expect(unsafe_code, reason = "see above")]
            unsafe {
                self.definition.as_mut().current_length = grown;
            }
        }
        Ok(current)
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.definition
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::MemoryNotShared)
    }

    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::UnsupportedOperation { message: "a guest's memory is not copied".to_owned() })
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        if let Some(mut space) = self.space.take()
            && space.clear().is_ok()
        {
            // A thread that ends keeps nothing.
            let _ = KEPT.try_with(|kept| kept.set(Some(space)));
        }
    }
}
