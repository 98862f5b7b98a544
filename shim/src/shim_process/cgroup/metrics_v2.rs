//! What a container has used, on cgroup v2, as containerd's `io.containerd.cgroups.v2.Metrics`.

use containerd_shim::protos::cgroups_v2::metrics::{
    CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
};
use containerd_shim::protos::protobuf::{Message as _, MessageField, Result};

use super::files::{Folder, device_numbers};
use super::metrics_v1::unlimited_is_0;

pub(super) fn metrics(cgroup: &Folder) -> Result<Vec<u8>> {
    let metrics = Metrics {
        pids: Some(PidsStat {
            current: cgroup.number("pids.current"),
            limit: unlimited_is_0(cgroup.number("pids.max")),
            ..PidsStat::default()
        })
        .into(),
        cpu: Some(cpu(cgroup)).into(),
        memory: Some(memory(cgroup)).into(),
        memory_events: Some(memory_events(cgroup)).into(),
        io: Some(io(cgroup)).into(),
        ..Metrics::default()
    };
    metrics.write_to_bytes()
}

fn cpu(cgroup: &Folder) -> CPUStat {
    let stat = cgroup.table("cpu.stat");
    let stat = |key| stat.get(key).copied().unwrap_or_default();
    CPUStat {
        usage_usec: stat("usage_usec"),
        user_usec: stat("user_usec"),
        system_usec: stat("system_usec"),
        nr_periods: stat("nr_periods"),
        nr_throttled: stat("nr_throttled"),
        throttled_usec: stat("throttled_usec"),
        nr_bursts: stat("nr_bursts"),
        burst_usec: stat("burst_usec"),
        psi: pressure(cgroup, "cpu.pressure"),
        ..CPUStat::default()
    }
}

fn memory(cgroup: &Folder) -> MemoryStat {
    let stat = cgroup.table("memory.stat");
    let stat = |key| stat.get(key).copied().unwrap_or_default();
    MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        // Kernels since 5.9 count these two for anonymous memory and files apart.
        workingset_refault: stat("workingset_refault_anon") + stat("workingset_refault_file"),
        workingset_activate: stat("workingset_activate_anon") + stat("workingset_activate_file"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: cgroup.number("memory.current"),
        usage_limit: cgroup.number("memory.max"),
        max_usage: cgroup.number("memory.peak"),
        swap_usage: cgroup.number("memory.swap.current"),
        swap_limit: cgroup.number("memory.swap.max"),
        swap_max_usage: cgroup.number("memory.swap.peak"),
        psi: pressure(cgroup, "memory.pressure"),
        ..MemoryStat::default()
    }
}

fn memory_events(cgroup: &Folder) -> MemoryEvents {
    let events = cgroup.table("memory.events");
    let events = |key| events.get(key).copied().unwrap_or_default();
    MemoryEvents {
        low: events("low"),
        high: events("high"),
        max: events("max"),
        oom: events("oom"),
        oom_kill: events("oom_kill"),
        oom_group_kill: events("oom_group_kill"),
        ..MemoryEvents::default()
    }
}

fn io(cgroup: &Folder) -> IOStat {
    let stat = cgroup.text("io.stat").unwrap_or_default();
    IOStat {
        usage: stat.lines().filter_map(io_entry).collect(),
        psi: pressure(cgroup, "io.pressure"),
        ..IOStat::default()
    }
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io_entry(line: &str) -> Option<IOEntry> {
    let mut words = line.split(' ');
    let (major, minor) = device_numbers(words.next()?)?;
    let mut entry = IOEntry { major, minor, ..IOEntry::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let field = match key {
            "rbytes" => &mut entry.rbytes,
            "wbytes" => &mut entry.wbytes,
            "rios" => &mut entry.rios,
            "wios" => &mut entry.wios,
            _ => continue,
        };
        *field = value.parse().ok()?;
    }
    Some(entry)
}

/// The share of time that tasks waited; nothing where the kernel does not measure it.
fn pressure(cgroup: &Folder, file: &str) -> MessageField<PSIStats> {
    let text = cgroup.text(file).unwrap_or_default();
    let of = |who: &str| text.lines().find_map(|line| pressure_line(line.strip_prefix(who)?)).into();
    let (some, full) = (of("some "), of("full "));
    if text.is_empty() {
        return MessageField::none();
    }
    Some(PSIStats { some, full, ..PSIStats::default() }).into()
}

/// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure_line(line: &str) -> Option<PSIData> {
    let mut data = PSIData::default();
    for (key, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
        match key {
            "avg10" => data.avg10 = value.parse().ok()?,
            "avg60" => data.avg60 = value.parse().ok()?,
            "avg300" => data.avg300 = value.parse().ok()?,
            "total" => data.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_io_stat_is_read() {
        let entry = io_entry("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6").unwrap_or_default();
        assert_eq!((entry.major, entry.minor), (8, 16));
        assert_eq!((entry.rbytes, entry.wbytes, entry.rios, entry.wios), (1, 2, 3, 4));
    }

    #[test]
    fn a_line_of_pressure_is_read() {
        let data = pressure_line("avg10=1.50 avg60=0.25 avg300=0.00 total=77").unwrap_or_default();
        assert_eq!((data.avg10, data.avg60, data.avg300, data.total), (1.5, 0.25, 0.0, 77));
    }
}
