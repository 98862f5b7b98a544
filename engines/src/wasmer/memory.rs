//! Memories of guests, which are used again unless they begin with an image.

use std::io;
use std::ptr::NonNull;

use wasmer::sys::vm::{LinearMemory, Trap, TrapCode, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition};
use wasmer::sys::{BaseTunables, Target, Tunables};
use wasmer::{MemoryError, MemoryStyle, MemoryType, Pages, TableStyle, TableType};

use super::lengths;
use crate::engine::MOST_TABLE_ELEMENTS;
use crate::guest_memory::{GuestMemory, MemoryImage, SpareMemories};

/// wasmer's own way to make memories and tables, but for the memories that a module defines.
pub(super) struct Memories {
    others: BaseTunables,
    spare: SpareMemories,
    image: Option<MemoryImage>,
}

impl Memories {
    pub(super) fn new(target: &Target, image: Option<MemoryImage>) -> Self {
        Self { others: BaseTunables::for_target(target), spare: SpareMemories::default(), image }
    }
}

impl Tunables for Memories {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.others.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.others.table_style(table)
    }

    fn create_host_memory(&self, ty: &MemoryType, style: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        self.others.create_host_memory(ty, style)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        definition: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        let memory: Box<dyn LinearMemory + Send + Sync> = match (*style, &self.image) {
            (MemoryStyle::Static { bound, offset_guard_size }, image) => {
                let (bytes, minimum) = (bound.bytes().0 + offset_guard_size as usize, ty.minimum.bytes().0);
                let memory = match image {
                    Some(image) => GuestMemory::map_with(bytes, minimum, image),
                    None => self.spare.take_or_map(bytes, minimum),
                };
                // SAFETY: this function's own contract.
                unsafe { Box::new(DefinedMemory::new(*ty, *style, memory.map_err(not_given)?, definition)) }
            }
            // SAFETY: this function's own contract.
            (_, None) => return unsafe { self.others.create_vm_memory(ty, style, definition) },
            (_, Some(_)) => {
                let message = "a memory that moves has no image".to_owned();
                return Err(MemoryError::UnsupportedOperation { message });
            }
        };
        lengths::add_memory(definition);
        Ok(memory.into())
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.others.create_host_table(ty, style)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        definition: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        if ty.minimum > MOST_TABLE_ELEMENTS {
            return Err(format!("a table of {} elements: {MOST_TABLE_ELEMENTS} are allowed", ty.minimum));
        }
        let maximum = ty.maximum.unwrap_or(MOST_TABLE_ELEMENTS).min(MOST_TABLE_ELEMENTS);
        let ty = TableType { maximum: Some(maximum), ..*ty };
        // SAFETY: this function's own contract.
        let table = unsafe { self.others.create_vm_table(&ty, style, definition) }?;
        lengths::add_table(definition);
        Ok(table)
    }
}

/// A memory that a module defines. It never moves.
#[derive(Debug)]
struct DefinedMemory {
    ty: MemoryType,
    style: MemoryStyle,
    memory: GuestMemory,
    /// In the instance, where its code finds it.
    definition: NonNull<VMMemoryDefinition>,
}

// SAFETY: the definition belongs to this memory's instance, and both to one store, which is used by one thread at a time.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Send for DefinedMemory {}
// SAFETY: nothing is changed through a shared reference.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Sync for DefinedMemory {}

impl DefinedMemory {
    /// # Safety
    /// The definition must be valid for as long as this memory.
    #[expect(unsafe_code, reason = "see above")]
    unsafe fn new(
        ty: MemoryType,
        style: MemoryStyle,
        memory: GuestMemory,
        definition: NonNull<VMMemoryDefinition>,
    ) -> Self {
        let (base, current_length) = (memory.base().as_ptr(), memory.accessible());
        // SAFETY: this function's own contract.
        unsafe { definition.write(VMMemoryDefinition { base, current_length }) };
        Self { ty, style, memory, definition }
    }
}

impl LinearMemory for DefinedMemory {
    fn ty(&self) -> MemoryType {
        MemoryType { minimum: self.size(), ..self.ty }
    }

    fn size(&self) -> Pages {
        Pages((self.memory.accessible() / wasmer::WASM_PAGE_SIZE) as u32)
    }

    fn style(&self) -> MemoryStyle {
        self.style
    }

    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        let current = self.size();
        let refused = MemoryError::CouldNotGrow { current, attempted_delta: delta };
        if lengths::are_taken() {
            return Err(refused);
        }
        let most = self.ty.maximum.unwrap_or(Pages::max_value()).min(Pages::max_value());
        let grown = current.checked_add(delta).filter(|grown| *grown <= most).ok_or(refused)?.bytes().0;
        self.memory.resize(grown).map_err(not_given)?;
        // SAFETY: by the contract of `new`.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            self.definition.as_mut().current_length = grown;
        }
        Ok(current)
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.definition
    }

    /// For `memory.init`, whose check an interrupt may follow: it [takes the length away](lengths).
    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn initialize_with_data(&self, start: usize, data: &[u8]) -> Result<(), Trap> {
        let end = start.checked_add(data.len()).filter(|end| *end <= self.memory.accessible());
        end.ok_or_else(|| Trap::lib(TrapCode::HeapAccessOutOfBounds))?;
        // SAFETY: the memory is accessible up to there, and nobody else's while its guest is in a call.
        unsafe { self.memory.base().add(start).copy_from_nonoverlapping(NonNull::from(data).cast(), data.len()) };
        Ok(())
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::MemoryNotShared)
    }

    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::UnsupportedOperation { message: "a guest's memory is not copied".to_owned() })
    }
}

/// The system has no memory, or no address space.
fn not_given(error: io::Error) -> MemoryError {
    MemoryError::Region(error.to_string())
}
