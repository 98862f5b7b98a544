//! Memories that guests have one after the other.
//!
//! To map one and to unmap it takes longer than the rest of an instance, and whenever the kernel takes pages back it has to
//! interrupt all processors that serve guests. So a memory is cleared in place and kept for the next guest.

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use nix::sys::sysinfo::sysinfo;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;

/// How many memories wait for a guest, at most.
const MOST_SPARE: usize = 64;
/// How many bytes of each stay with this process meanwhile, at most.
const KEPT_BYTES: usize = 256 << 10;

/// Memories without a guest. Who came last goes first: it is in a processor's cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpareMemories(Arc<Mutex<Vec<GuestMemory>>>);

impl SpareMemories {
    /// A memory for a guest: address space of so many bytes, all zeros, of which `accessible` are accessible.
    pub(crate) fn take_or_map(&self, bytes: usize, accessible: usize) -> io::Result<GuestMemory> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let spare = spare.filter(|spare| spare.reserved == bytes);
        let mut memory = spare.map_or_else(|| GuestMemory::map(bytes), Ok)?;
        memory.resize(accessible)?;
        memory.home = Some(self.clone());
        Ok(memory)
    }

    fn put(&self, memory: GuestMemory) {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memories.len() < MOST_SPARE {
            memories.push(memory);
        }
    }
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
        let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), flags) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, reserved: bytes, accessible: 0, home: None })
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
    fn clear(&mut self) -> io::Result<()> {
        let had_swap_space = has_swap_space()?;
        let mut resident = vec![0_u8; self.accessible / page_size()];
        // SAFETY: there is a byte for each page of the range, which is a part of the mapping.
        #[expect(unsafe_code, reason = "see above")]
        let done = unsafe { libc::mincore(self.at(0), self.accessible, resident.as_mut_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // What is not resident was not touched, unless it is in swap space.
        let may_be_swapped_out = had_swap_space || has_swap_space()?;
        let (mut start, mut kept) = (0, 0);
        for pages in resident.chunk_by(|a, b| (a ^ b) & 1 == 0) {
            let bytes = pages.len() * page_size();
            let is_resident = pages[0] & 1 == 1;
            if is_resident && kept + bytes <= KEPT_BYTES {
                // SAFETY: the range is accessible, and nobody has a reference into it.
                #[expect(unsafe_code, reason = "see above")]
                unsafe {
                    self.at(start).cast::<u8>().write_bytes(0, bytes);
                }
                kept += bytes;
            } else if is_resident || may_be_swapped_out {
                // SAFETY: as above. The mapping is private and of no file: its pages are zeros when they are next touched.
                #[expect(unsafe_code, reason = "see above")]
                unsafe { madvise(self.at(start), bytes, Advice::LinuxDontNeed) }?;
            }
            start += bytes;
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
            && self.clear().is_ok()
        {
            let Self { base, reserved, accessible, .. } = *self;
            home.put(Self { base, reserved, accessible, home: None });
            return;
        }
        // SAFETY: the mapping is this value's own, and nobody has a reference into it.
        #[expect(unsafe_code, reason = "see above")]
        let _ = unsafe { munmap(self.at(0), self.reserved) };
    }
}

/// Whether the system has any place for pages outside its memory.
fn has_swap_space() -> io::Result<bool> {
    Ok(sysinfo()?.swap_total() > 0)
}
