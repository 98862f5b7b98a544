//! Memories that guests have one after the other.
//!
//! To map one and to unmap it takes longer than the rest of an instance, and whenever the kernel takes pages back it has to
//! interrupt all processors that serve guests. So a memory is cleared in place and kept for the next guest, unless it began
//! with more than zeros.

mod touched;

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap};

use touched::{PageMap, Touched, touched};

/// How many memories wait for a guest, at most.
const MOST_SPARE: usize = 64;
/// How many bytes of each stay with this process meanwhile, at most.
const KEPT_BYTES: usize = 256 << 10;
/// What is not accessible before each, should an engine's code ever take an offset for negative. As much as wasmtime has there.
const GUARD: usize = 32 << 20;

/// Memories without a guest. Who came last goes first: it is in a processor's cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpareMemories(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    memories: Mutex<Vec<GuestMemory>>,
    page_map: PageMap,
}

impl SpareMemories {
    /// A memory for a guest: address space of so many bytes, all zeros, of which `accessible` are accessible.
    pub(crate) fn take_or_map(&self, bytes: usize, accessible: usize) -> io::Result<GuestMemory> {
        let spare = self.0.memories.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let spare = spare.filter(|spare| spare.reserved == bytes);
        let mut memory = spare.map_or_else(|| GuestMemory::map(bytes), Ok)?;
        memory.resize(accessible)?;
        memory.home = Some(self.clone());
        Ok(memory)
    }

    fn put(&self, memory: GuestMemory) {
        let mut memories = self.0.memories.lock().unwrap_or_else(PoisonError::into_inner);
        if memories.len() < MOST_SPARE {
            memories.push(memory);
        }
    }
}

/// What a memory begins with: the first bytes of a file that nobody changes, whole pages at an address.
pub(crate) struct MemoryImage {
    pub(crate) file: File,
    pub(crate) address: usize,
    pub(crate) length: usize,
}

/// Address space that can be read and written up to some point.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    base: NonNull<u8>,
    reserved: usize,
    accessible: usize,
    /// Where it goes when its guest is gone.
    home: Option<SpareMemories>,
}

// SAFETY: the mapping belongs to this value alone.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Send for GuestMemory {}
// SAFETY: nothing is changed through a shared reference.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    fn map(bytes: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the mapping is new, and where the kernel has a place for it.
        #[expect(unsafe_code, reason = "see above")]
        let mapping = unsafe { mmap_anonymous(null_mut(), GUARD + bytes, ProtFlags::empty(), flags) }?;
        let base = NonNull::new(mapping.cast::<u8>().wrapping_add(GUARD)).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, reserved: bytes, accessible: 0, home: None })
    }

    /// A new memory, for one guest. What it writes to is copied first, page by page.
    pub(crate) fn map_with(bytes: usize, accessible: usize, image: &MemoryImage) -> io::Result<Self> {
        let MemoryImage { file, address, length } = image;
        if address.checked_add(*length).is_none_or(|end| end > accessible) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut memory = Self::map(bytes)?;
        memory.resize(accessible)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        // SAFETY: this is a part of the new mapping, and nobody has a reference into it.
        #[expect(unsafe_code, reason = "see above")]
        unsafe { mmap(memory.at(*address), *length, access, flags, file, 0) }?;
        Ok(memory)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn accessible(&self) -> usize {
        self.accessible
    }

    /// Has so many bytes, whole pages, be accessible, and not one more. It never moves.
    pub(crate) fn resize(&mut self, accessible: usize) -> io::Result<()> {
        if accessible > self.reserved {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (start, end, protection) = if accessible > self.accessible {
            (self.accessible, accessible, MprotectFlags::READ | MprotectFlags::WRITE)
        } else {
            (accessible, self.accessible, MprotectFlags::empty())
        };
        if start < end {
            // SAFETY: this is a part of the mapping, and nobody has a reference into it.
            #[expect(unsafe_code, reason = "see above")]
            unsafe { mprotect(self.at(start), end - start, protection) }?;
        }
        self.accessible = accessible;
        Ok(())
    }

    /// Has every byte be zero. A few pages that were touched stay, because the next guest touches the same ones; the rest
    /// goes back to the system.
    fn clear(&mut self, page_map: &PageMap) -> io::Result<()> {
        let base = self.base.addr().get();
        let Touched { parts, unknown } = touched(page_map, &(base..base + self.accessible), KEPT_BYTES);
        for part in parts {
            // SAFETY: the range is accessible, and nobody has a reference into it.
            #[expect(unsafe_code, reason = "see above")]
            unsafe {
                self.at(part.start - base).cast::<u8>().write_bytes(0, part.len());
            }
        }
        if !unknown.is_empty() {
            // SAFETY: as above. The mapping is private and of no file: its pages are zeros when they are next touched.
            #[expect(unsafe_code, reason = "see above")]
            unsafe { madvise(self.at(unknown.start - base), unknown.len(), Advice::LinuxDontNeed) }?;
        }
        Ok(())
    }

    fn at(&self, offset: usize) -> *mut c_void {
        self.base.as_ptr().wrapping_add(offset).cast()
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        if let Some(home) = self.home.take()
            && self.clear(&home.0.page_map).is_ok()
        {
            let Self { base, reserved, accessible, .. } = *self;
            home.put(Self { base, reserved, accessible, home: None });
            return;
        }
        // SAFETY: the mapping is this value's own, and nobody has a reference into it.
        #[expect(unsafe_code, reason = "see above")]
        let _ = unsafe { munmap(self.at(0).wrapping_byte_sub(GUARD), GUARD + self.reserved) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVED: usize = 64 << 20;
    const ACCESSIBLE: usize = 4 << 20;

    fn bytes(memory: &mut GuestMemory) -> &mut [u8] {
        // SAFETY: so many bytes are accessible, and the memory is borrowed for as long.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            std::slice::from_raw_parts_mut(memory.base.as_ptr(), memory.accessible)
        }
    }

    /// Has guests write, little and much, and looks what the next one finds: in a memory that can stay as a whole, and in one
    /// that cannot.
    fn use_again(spare: &SpareMemories) {
        for accessible in [KEPT_BYTES / 2, ACCESSIBLE] {
            let middle = accessible / 2;
            for written in [10..20, middle..middle + 1, 4_000..middle, 0..accessible, 0..1] {
                let mut memory = spare.take_or_map(RESERVED, accessible).unwrap();
                assert!(bytes(&mut memory).iter().all(|byte| *byte == 0), "{accessible} bytes, before {written:?}");
                bytes(&mut memory)[written].fill(1);
            }
        }
        assert_eq!(spare.0.memories.lock().unwrap().len(), 1, "it was the same one each time");
    }

    #[test]
    fn a_guest_finds_nothing_of_the_one_before() {
        use_again(&SpareMemories::default());
    }

    #[test]
    fn a_guest_finds_nothing_of_the_one_before_where_the_kernel_has_no_page_map() {
        let shared = Shared { page_map: PageMap::missing(), ..Shared::default() };
        use_again(&SpareMemories(Arc::new(shared)));
    }

    #[test]
    fn what_one_guest_made_accessible_is_not_for_the_next() {
        let spare = SpareMemories::default();
        let mut memory = spare.take_or_map(RESERVED, ACCESSIBLE).unwrap();
        memory.resize(2 * ACCESSIBLE).unwrap();
        bytes(&mut memory).fill(1);
        drop(memory);
        let mut memory = spare.take_or_map(RESERVED, ACCESSIBLE).unwrap();
        assert_eq!(memory.accessible(), ACCESSIBLE);
        memory.resize(2 * ACCESSIBLE).unwrap();
        assert!(bytes(&mut memory).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn nothing_is_accessible_before_a_memory_and_behind_it() {
        let memory = SpareMemories::default().take_or_map(RESERVED, ACCESSIBLE).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let access = |address: usize| {
            maps.lines().find_map(|line| {
                let (range, rest) = line.split_once(' ')?;
                let (start, end) = range.split_once('-')?;
                let [start, end] = [start, end].map(|bound| usize::from_str_radix(bound, 16).unwrap());
                (start..end).contains(&address).then(|| &rest[..3])
            })
        };
        let base = memory.base.addr().get();
        let (before, behind) = ([base - GUARD, base - 1], [base + ACCESSIBLE, base + RESERVED - 1]);
        assert_eq!([base, base + ACCESSIBLE - 1].map(access), [Some("rw-"); 2]);
        assert_eq!(before.map(access), [Some("---"); 2]);
        assert_eq!(behind.map(access), [Some("---"); 2]);
    }

    #[test]
    fn no_more_is_accessible_than_was_reserved() {
        let mut memory = SpareMemories::default().take_or_map(RESERVED, 0).unwrap();
        assert!(memory.resize(RESERVED + 4096).is_err());
        assert_eq!(memory.accessible(), 0);
    }
}
