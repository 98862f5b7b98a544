//! What a container has used, on cgroup v1, as containerd's `io.containerd.cgroups.v1.Metrics`.

use std::collections::HashMap;
use std::fs;

use containerd_shim::protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, MemoryEntry, MemoryOomControl, MemoryStat, Metrics, PidsStat, Throttle,
};
use containerd_shim::protos::protobuf::{Message as _, Result};

use super::Cgroup;
use super::files::{Folder, device_numbers};

/// Linux counts the time of user and kernel in ticks, and has said 100 a second to programs since it exists.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub(super) fn metrics(cgroup: &Cgroup) -> Result<Vec<u8>> {
    let (memory, pids) = (cgroup.folder("memory"), cgroup.folder("pids"));
    let metrics = Metrics {
        pids: Some(PidsStat {
            current: pids.number("pids.current"),
            limit: unlimited_is_0(pids.number("pids.max")),
            ..PidsStat::default()
        })
        .into(),
        cpu: Some(cpu(&cgroup.folder("cpuacct"), &cgroup.folder("cpu"))).into(),
        memory: Some(memory_stat(&memory)).into(),
        memory_oom_control: Some(oom_control(&memory.table("memory.oom_control"))).into(),
        blkio: Some(blkio(&cgroup.folder("blkio"))).into(),
        ..Metrics::default()
    };
    metrics.write_to_bytes()
}

/// containerd's own shim reports an unlimited number of processes as 0 (on cgroup v1).
pub(super) fn unlimited_is_0(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

fn cpu(cpuacct: &Folder, cpu: &Folder) -> CPUStat {
    let (ticks, throttled) = (cpuacct.table("cpuacct.stat"), cpu.table("cpu.stat"));
    let of_each = cpuacct.text("cpuacct.usage_percpu").unwrap_or_default();
    let usage = CPUUsage {
        total: cpuacct.number("cpuacct.usage"),
        kernel: value(&ticks, "system") * NANOSECONDS_PER_TICK,
        user: value(&ticks, "user") * NANOSECONDS_PER_TICK,
        per_cpu: of_each.split_whitespace().filter_map(|nanoseconds| nanoseconds.parse().ok()).collect(),
        ..CPUUsage::default()
    };
    let throttling = Throttle {
        periods: value(&throttled, "nr_periods"),
        throttled_periods: value(&throttled, "nr_throttled"),
        throttled_time: value(&throttled, "throttled_time"),
        ..Throttle::default()
    };
    CPUStat { usage: Some(usage).into(), throttling: Some(throttling).into(), ..CPUStat::default() }
}

fn memory_stat(memory: &Folder) -> MemoryStat {
    let stat = memory.table("memory.stat");
    let stat = |key| value(&stat, key);
    let entry = |kind| Some(memory_entry(memory, kind)).into();
    MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        ..MemoryStat::default()
    }
}

fn memory_entry(memory: &Folder, kind: &str) -> MemoryEntry {
    let number = |name| memory.number(&format!("{kind}.{name}"));
    MemoryEntry {
        limit: number("limit_in_bytes"),
        usage: number("usage_in_bytes"),
        max: number("max_usage_in_bytes"),
        failcnt: number("failcnt"),
        ..MemoryEntry::default()
    }
}

fn oom_control(table: &HashMap<String, u64>) -> MemoryOomControl {
    MemoryOomControl {
        oom_kill_disable: value(table, "oom_kill_disable"),
        under_oom: value(table, "under_oom"),
        oom_kill: value(table, "oom_kill"),
        ..MemoryOomControl::default()
    }
}

/// The throttling layer counts for every disk, whatever its scheduler.
fn blkio(blkio: &Folder) -> BlkIOStat {
    let entries = |file| blkio.text(file).unwrap_or_default().lines().filter_map(blkio_entry).collect();
    BlkIOStat {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes_recursive"),
        io_serviced_recursive: entries("blkio.throttle.io_serviced_recursive"),
        ..BlkIOStat::default()
    }
}

/// `8:0 Read 4096`; the last line is a total without a device.
fn blkio_entry(line: &str) -> Option<BlkIOEntry> {
    let mut words = line.split(' ');
    let device = words.next()?;
    let (major, minor) = device_numbers(device)?;
    let (op, value) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let name = fs::read_link(format!("/sys/dev/block/{device}")).ok();
    let name = name.as_ref().and_then(|path| path.file_name()?.to_str());
    let device = name.map(|name| format!("/dev/{name}")).unwrap_or_default();
    Some(BlkIOEntry { op, device, major, minor, value, ..BlkIOEntry::default() })
}

fn value(table: &HashMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_blkio_is_read_and_its_total_is_left_out() {
        let entry = blkio_entry("4095:77 Write 4096").unwrap_or_default();
        assert_eq!((entry.major, entry.minor, &*entry.op, entry.value), (4095, 77, "Write", 4096));
        assert_eq!(blkio_entry("Total 4096"), None);
        assert_eq!(blkio_entry(""), None);
    }
}
