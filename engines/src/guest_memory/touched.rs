//! Which pages of a memory its guest has touched, so that only these need be cleared.

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::libc::mincore;
use nix::sys::sysinfo::sysinfo;
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, open};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::param::page_size;
use rustix::process::{Pid, getpid};

/// The parts that one scan can tell of.
const MOST_PARTS: usize = 32;

/// Parts of a memory, as addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) parts: Vec<Range<usize>>,
    /// Behind them: what may have been touched or not.
    pub(super) unknown: Range<usize>,
}

/// What was touched in a range of whole pages, up to `most` bytes of it. The range is mapped private and anonymous, and
/// nobody touches it meanwhile.
pub(super) fn touched(page_map: &PageMap, range: &Range<usize>, most: usize) -> Touched {
    let known = page_map.touched(range, most).or_else(|| resident(range, most));
    known.unwrap_or_else(|| Touched { parts: Vec::new(), unknown: range.clone() })
}

/// The kernel's map of this process's pages, opened when it is first asked for: /proc/self/pagemap.
#[derive(Debug, Default)]
pub(super) struct PageMap(OnceLock<Option<(OwnedFd, Pid)>>);

impl PageMap {
    /// What is in memory, in swap space or on its way. Nothing before Linux 6.7, or where there is no /proc to ask.
    fn touched(&self, range: &Range<usize>, most: usize) -> Option<Touched> {
        let (file, owner) = self.0.get_or_init(open_page_map).as_ref()?;
        // It is still the map of the process that opened it.
        if *owner != getpid() {
            return None;
        }
        let mut regions = [PageRegion::default(); MOST_PARTS];
        let mut scan = PageMapScan {
            size: size_of::<PageMapScan>() as u64,
            start: range.start as u64,
            end: range.end as u64,
            regions: regions.as_mut_ptr() as u64,
            regions_length: MOST_PARTS as u64,
            max_pages: (most / page_size()) as u64,
            wanted_any: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..PageMapScan::default()
        };
        // SAFETY: the structure is what the kernel takes for this number, and it writes no more regions than there are.
        #[expect(unsafe_code, reason = "see above")]
        unsafe { ioctl(file, Updater::<PAGEMAP_SCAN, _>::new(&mut scan)) }.ok()?;
        let parts = regions.iter().take_while(|region| region.end > 0);
        let parts = parts.map(|region| region.start as usize..region.end as usize).collect();
        Some(Touched { parts, unknown: scan.walk_end as usize..range.end })
    }
}

#[cfg(test)]
impl PageMap {
    pub(super) fn missing() -> Self {
        Self(OnceLock::from(None))
    }
}

fn open_page_map() -> Option<(OwnedFd, Pid)> {
    // It is the container's /proc, and may be something that only has the name.
    let file = open("/proc/self/pagemap", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
    (fstatfs(&file).ok()?.f_type == PROC_SUPER_MAGIC).then(|| (file, getpid()))
}

/// What is in memory. Nothing where the rest could be in swap space.
fn resident(range: &Range<usize>, most: usize) -> Option<Touched> {
    let had_swap_space = has_swap_space()?;
    let mut resident = vec![0; range.len() / page_size()];
    // SAFETY: there is a byte for each page of the range.
    #[expect(unsafe_code, reason = "see above")]
    let done = unsafe { mincore(range.start as *mut c_void, range.len(), resident.as_mut_ptr()) };
    if done != 0 || had_swap_space || has_swap_space()? {
        return None;
    }
    let (mut parts, mut found, mut seen) = (Vec::new(), 0, range.start);
    for pages in resident.chunk_by(|a, b| (a ^ b) & 1 == 0) {
        let part = seen..seen + pages.len() * page_size();
        if pages[0] & 1 == 1 {
            found += part.len();
            if found > most {
                break;
            }
            parts.push(part.clone());
        }
        seen = part.end;
    }
    Some(Touched { parts, unknown: seen..range.end })
}

/// Whether the system has any place for pages outside its memory.
fn has_swap_space() -> Option<bool> {
    Some(sysinfo().ok()?.swap_total() > 0)
}

// Source: PAGEMAP_SCAN in include/uapi/linux/fs.h of Linux 6.7.

const PAGEMAP_SCAN: Opcode = opcode::read_write::<PageMapScan>(b'f', 16);
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct PageMapScan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    /// Answered: up to where the kernel has looked.
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    max_pages: u64,
    inverted: u64,
    wanted_all: u64,
    wanted_any: u64,
    returned: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

    use super::*;

    /// A new mapping of a hundred pages, with something on these.
    fn mapping(written: &[usize]) -> Range<usize> {
        let (bytes, access) = (100 * page_size(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: the mapping is new, and the pages are in it.
        #[expect(unsafe_code, reason = "see above")]
        let base = unsafe {
            let base = mmap_anonymous(null_mut(), bytes, access, MapFlags::PRIVATE).unwrap();
            written.iter().for_each(|page| base.cast::<u8>().add(page * page_size()).write(1));
            base.addr()
        };
        base..base + bytes
    }

    fn pages(range: &Range<usize>, pages: Range<usize>) -> Range<usize> {
        range.start + pages.start * page_size()..range.start + pages.end * page_size()
    }

    #[test]
    fn both_ways_to_ask_find_what_was_written() {
        let range = mapping(&[0, 7, 8, 9, 99]);
        let parts = vec![pages(&range, 0..1), pages(&range, 7..10), pages(&range, 99..100)];
        let expected = Touched { parts, unknown: range.end..range.end };
        for (by, found) in
            [("map", PageMap::default().touched(&range, 1 << 20)), ("residence", resident(&range, 1 << 20))]
        {
            // Neither is to be had on every system.
            assert!(found.as_ref().is_none_or(|found| *found == expected), "{by}: {found:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_unknown() {
        let range = mapping(&[1, 2, 5]);
        for touched in [touched(&PageMap::default(), &range, 2 * page_size()), touched(&PageMap::missing(), &range, 0)]
        {
            assert!(touched.unknown.contains(&pages(&range, 5..6).start), "{touched:?}");
            assert_eq!(touched.unknown.end, range.end);
        }
    }

    #[test]
    fn many_parts_are_known_or_unknown_but_never_left_out() {
        let written: Vec<usize> = (0..100).step_by(2).collect();
        let range = mapping(&written);
        for page_map in [PageMap::default(), PageMap::missing()] {
            let touched = touched(&page_map, &range, 1 << 20);
            for page in &written {
                let address = pages(&range, *page..page + 1).start;
                assert!(touched.parts.iter().chain([&touched.unknown]).any(|part| part.contains(&address)), "{page}");
            }
        }
    }
}
