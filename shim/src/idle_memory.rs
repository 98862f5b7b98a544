//! Memory that a process needed to begin, and does not need to wait. Most containers of a node wait most of the time.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::slice;
use std::time::Duration;

use nix::libc::{PF_W, PT_LOAD, dl_iterate_phdr, dl_phdr_info, malloc_trim};
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// A process that ends sooner frees all of its memory anyway.
const SETTLED: Duration = Duration::from_secs(1);

/// Gives back once, a moment from now, what the kernel can have.
pub(crate) async fn give_back_once_settled() {
    tokio::time::sleep(SETTLED).await;
    // SAFETY: it may be called at any time, from any thread.
    #[expect(unsafe_code, reason = "see above")]
    unsafe {
        malloc_trim(0)
    };
    // SAFETY: the function fits, and takes no data.
    #[expect(unsafe_code, reason = "see above")]
    unsafe {
        dl_iterate_phdr(Some(unmap_code), null_mut())
    };
}

/// Unmaps the program's pages that nobody can have written to. They stay in the system's cache, from where whoever
/// needs one again has it.
extern "C" fn unmap_code(program: *mut dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: `dl_iterate_phdr` hands a valid object, with as many headers as it says.
    #[expect(unsafe_code, reason = "see above")]
    let (base, headers) = unsafe {
        let program = &*program;
        (program.dlpi_addr, slice::from_raw_parts(program.dlpi_phdr, program.dlpi_phnum.into()))
    };
    for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_flags & PF_W == 0) {
        let start = (base + header.p_vaddr) as usize;
        let first = start - start % page_size();
        let length = start + header.p_memsz as usize - first;
        // SAFETY: the pages are as they were mapped from the file, and come back with the same content.
        #[expect(unsafe_code, reason = "see above")]
        let _ = unsafe { madvise(first as *mut c_void, length, Advice::LinuxDontNeed) };
    }
    // Libraries come behind the program.
    1
}
