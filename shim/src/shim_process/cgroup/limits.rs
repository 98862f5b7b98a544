//! Changes the limits of a running container. What a request leaves out, or gives as 0 or empty, stays as it is, and
//! so do its rules for devices.
//!
//! Clients send all that a container was made with, and their changes in it: so do containerd's CRI and nerdctl. What
//! cannot be changed is refused only where it is to be another.

use anyhow::{Context as _, ensure};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::Cgroup;
use super::files::Folder;

const UNLIMITED: i64 = -1;

/// One file to be written.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    controller: &'static str,
    file: &'static str,
    value: String,
}

fn change(controller: &'static str, file: &'static str, value: impl ToString) -> Change {
    Change { controller, file, value: value.to_string() }
}

impl Cgroup {
    /// # Errors
    /// What cannot be changed, or the kernel's reason, such as more memory in use than the new limit; then nothing has
    /// changed.
    pub(in super::super) fn update(
        &self,
        resources: &LinuxResources,
        made_with: &LinuxResources,
    ) -> anyhow::Result<()> {
        let unchangeable = unchangeable(resources, made_with);
        ensure!(unchangeable.is_empty(), "cannot change {} of a running container", unchangeable.join(", "));
        let left_out = left_out(resources, made_with);
        if !left_out.is_empty() {
            let cgroup = self.path.folder.display();
            self.has_left_out.call_once(|| tracing::warn!(%cgroup, ?left_out, "an update is done without some limits"));
        }
        let changes = if self.unified { self.changes_v2(resources)? } else { self.changes_v1(resources) };
        let mut before = Vec::new();
        let updated = changes.iter().try_for_each(|Change { controller, file, value }| {
            let folder = self.folder(controller);
            let old = folder.text(file).unwrap_or_default();
            folder.write(file, value).with_context(|| format!("cannot set {file} to {value}"))?;
            before.push((folder, *file, old));
            Ok(())
        });
        let updated = updated.and_then(|()| match &self.path.scope {
            Some(scope) => scope.keep_limits(&self.path("")),
            None => Ok(()),
        });
        if updated.is_err() {
            for (folder, file, old) in before.iter().rev() {
                let _ = folder.write(file, old.trim());
            }
        }
        updated
    }

    fn changes_v1(&self, resources: &LinuxResources) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(cpu) = resources.cpu() {
            let quota = self.folder("cpu").text("cpu.cfs_quota_us").ok().and_then(|text| text.trim().parse().ok());
            changes.extend(cpu_v1(cpu, quota.unwrap_or(UNLIMITED)));
            changes.extend(cpuset(cpu));
        }
        if let Some(memory) = resources.memory() {
            let folder = self.folder("memory");
            let counts_swap = folder.0.join("memory.memsw.limit_in_bytes").exists();
            changes.extend(memory_v1(memory, folder.number("memory.limit_in_bytes"), counts_swap));
        }
        changes.extend(resources.pids().as_ref().and_then(pids));
        changes
    }

    fn changes_v2(&self, resources: &LinuxResources) -> anyhow::Result<Vec<Change>> {
        let folder = self.folder("");
        let mut changes = Vec::new();
        if let Some(cpu) = resources.cpu() {
            changes.extend(cpu_v2(cpu, &folder.text("cpu.max").unwrap_or_default()));
            changes.extend(cpuset(cpu));
        }
        if let Some(memory) = resources.memory() {
            changes.extend(memory_v2(memory, &MemoryNow::of(&folder))?);
        }
        changes.extend(resources.pids().as_ref().and_then(pids));
        Ok(changes)
    }
}

/// A number that is not the 0 for what is left out.
fn given<N: Default + PartialEq>(number: Option<N>) -> Option<N> {
    number.filter(|number| *number != N::default())
}

/// What is to be another than the container was made with, and cannot be.
fn unchangeable(asked: &LinuxResources, made_with: &LinuxResources) -> Vec<&'static str> {
    fn differs<T: Default + PartialEq>(asked: Option<T>, made_with: Option<T>) -> bool {
        given(asked).is_some_and(|asked| Some(asked) != made_with)
    }
    let [cpu, cpu_made_with] = [asked, made_with].map(|resources| resources.cpu().clone().unwrap_or_default());
    let fields = [
        ("blockIO", differs(asked.block_io().clone(), made_with.block_io().clone())),
        ("cpu.burst", differs(cpu.burst(), cpu_made_with.burst())),
        ("cpu.idle", differs(cpu.idle(), cpu_made_with.idle())),
        ("cpu.realtimePeriod", differs(cpu.realtime_period(), cpu_made_with.realtime_period())),
        ("cpu.realtimeRuntime", differs(cpu.realtime_runtime(), cpu_made_with.realtime_runtime())),
        ("network", differs(asked.network().clone(), made_with.network().clone())),
        ("rdma", differs(asked.rdma().clone(), made_with.rdma().clone())),
    ];
    fields.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// The same of what may come with other changes, such as the kubelet's `memory.high` when a pod is resized: these must not
/// be refused for it.
fn left_out(asked: &LinuxResources, made_with: &LinuxResources) -> Vec<String> {
    let made_with_limits = made_with.hugepage_limits().as_deref().unwrap_or_default();
    let huge_pages = asked.hugepage_limits().iter().flatten().filter(|limit| !made_with_limits.contains(limit));
    let mut left_out: Vec<_> = huge_pages.map(|limit| format!("hugepageLimits.{}", limit.page_size())).collect();
    let value_made_with = |file| made_with.unified().as_ref().and_then(|files| files.get(file));
    let unified = asked.unified().iter().flatten().filter(|(file, value)| value_made_with(*file) != Some(*value));
    left_out.extend(unified.map(|(file, _)| format!("unified.{file}")));
    left_out
}

fn cpu_v1(cpu: &LinuxCpu, quota_now: i64) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(given(cpu.shares()).map(|shares| change("cpu", "cpu.shares", shares)));
    let quota = |quota: i64| change("cpu", "cpu.cfs_quota_us", quota);
    if let Some(period) = given(cpu.period()) {
        // The kernel refuses a pair that exceeds the parent's share, even for the moment between two writes.
        changes.extend([quota(UNLIMITED), change("cpu", "cpu.cfs_period_us", period)]);
        changes.push(quota(given(cpu.quota()).unwrap_or(quota_now)));
    } else {
        changes.extend(given(cpu.quota()).map(quota));
    }
    changes
}

fn cpu_v2(cpu: &LinuxCpu, max_now: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(given(cpu.shares()).map(|shares| change("cpu", "cpu.weight", weight(shares))));
    let (quota, period) = (given(cpu.quota()), given(cpu.period()));
    if quota.is_some() || period.is_some() {
        let (quota_now, period_now) = max_now.trim().split_once(' ').unwrap_or(("max", "100000"));
        let quota = quota.map_or(quota_now.to_owned(), limit_v2);
        let period = period.map_or(period_now.to_owned(), |period| period.to_string());
        changes.push(change("cpu", "cpu.max", format!("{quota} {period}")));
    }
    changes
}

/// Shares, from 2 to 262144, as a weight from 1 to 10000, so that 1024 becomes 100: the curve through these three that
/// runc and libcgroups use.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "both ranges are small"
)]
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn cpuset(cpu: &LinuxCpu) -> impl Iterator<Item = Change> {
    let cpus = given(cpu.cpus().clone()).map(|cpus| change("cpuset", "cpuset.cpus", cpus));
    let mems = given(cpu.mems().clone()).map(|mems| change("cpuset", "cpuset.mems", mems));
    cpus.into_iter().chain(mems)
}

/// The limit of memory must never be above that of memory and swap, not even between two writes.
fn memory_v1(memory: &LinuxMemory, limit_now: u64, counts_swap: bool) -> Vec<Change> {
    let (limit, mut swap) = (given(memory.limit()), given(memory.swap()));
    if limit == Some(UNLIMITED) && swap.is_none() && counts_swap {
        swap = Some(UNLIMITED);
    }
    let swap_first = swap.is_some_and(|swap| u64::try_from(swap).map_or(true, |swap| swap > limit_now));
    let mut changes = Vec::new();
    changes.extend(limit.map(|limit| change("memory", "memory.limit_in_bytes", limit)));
    changes.extend(swap.map(|swap| change("memory", "memory.memsw.limit_in_bytes", swap)));
    if swap_first {
        changes.reverse();
    }
    let reservation = given(memory.reservation());
    changes.extend(reservation.map(|reservation| change("memory", "memory.soft_limit_in_bytes", reservation)));
    changes
}

/// The memory of a cgroup (version 2) as it is.
struct MemoryNow {
    limit: i64,
    /// Beside the limit of memory; none where the kernel does not count swap.
    swap: Option<i64>,
    /// In use, and cannot be written to a disk or dropped.
    unreclaimable: u64,
}

impl MemoryNow {
    fn of(folder: &Folder) -> Self {
        let stat = folder.table("memory.stat");
        let stat = |key| stat.get(key).copied().unwrap_or_default();
        let page_cache = stat("file").saturating_sub(stat("shmem"));
        let counts_swap = folder.0.join("memory.swap.max").exists();
        Self {
            limit: signed(folder.number("memory.max")),
            swap: counts_swap.then(|| signed(folder.number("memory.swap.max"))),
            unreclaimable: folder.number("memory.current").saturating_sub(page_cache + stat("slab_reclaimable")),
        }
    }
}

/// The OCI specification's swap is memory and swap together, cgroup v2's is swap alone.
fn memory_v2(memory: &LinuxMemory, now: &MemoryNow) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let asked = given(memory.limit());
    if let Some(limit) = asked {
        // The kernel would not refuse, but kill.
        let fits = u64::try_from(limit).map_or(true, |limit| limit >= now.unreclaimable);
        ensure!(fits, "cannot set memory.max to {limit}: {} bytes are in use", now.unreclaimable);
        changes.push(change("memory", "memory.max", limit_v2(limit)));
    }
    let swap = match (given(memory.swap()), asked.unwrap_or(now.limit)) {
        (Some(UNLIMITED), _) => Some(UNLIMITED),
        (None, _) => asked.filter(|limit| *limit == UNLIMITED),
        (Some(both), limit) => {
            ensure!(limit != UNLIMITED, "a limit of swap takes a limit of memory");
            ensure!(both >= limit, "the limit of memory and swap, {both}, is below that of memory, {limit}");
            Some(both - limit)
        }
    };
    if let Some(swap) = swap.filter(|swap| now.swap.is_some() || *swap > 0) {
        changes.push(change("memory", "memory.swap.max", limit_v2(swap)));
    }
    let reservation = given(memory.reservation());
    changes.extend(reservation.map(|reservation| change("memory", "memory.low", limit_v2(reservation))));
    Ok(changes)
}

fn pids(pids: &LinuxPids) -> Option<Change> {
    given(Some(pids.limit())).map(|limit| change("pids", "pids.max", limit_v2(limit)))
}

/// As cgroup v2 writes a limit, and the pids controller of both versions.
fn limit_v2(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// As the OCI specification writes a limit.
fn signed(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(json: &str) -> LinuxCpu {
        serde_json::from_str(json).expect("valid")
    }

    fn memory(json: &str) -> LinuxMemory {
        serde_json::from_str(json).expect("valid")
    }

    fn written(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| format!("{}={}", change.file, change.value)).collect()
    }

    #[test]
    fn what_a_request_leaves_out_stays() {
        let nothing = cpu(r#"{"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}"#);
        assert_eq!(cpu_v1(&nothing, 5), []);
        assert_eq!(cpu_v2(&nothing, "max 100000"), []);
        assert_eq!(cpuset(&nothing).count(), 0);
        let nothing = memory(r#"{"limit": 0, "swap": 0, "reservation": 0}"#);
        assert_eq!(memory_v1(&nothing, 5, true), []);
        let now = MemoryNow { limit: UNLIMITED, swap: Some(0), unreclaimable: 0 };
        assert_eq!(memory_v2(&nothing, &now).expect("possible"), []);
    }

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).expect("valid")
    }

    #[test]
    fn what_cannot_be_changed_is_told_where_it_is_to_be_another() {
        let made_with =
            resources(r#"{"blockIO": {"weight": 100}, "cpu": {"realtimeRuntime": 5, "realtimePeriod": 10}}"#);
        let changed = |json: &str| unchangeable(&resources(json), &made_with);
        assert_eq!(unchangeable(&made_with, &made_with), [""; 0]);
        let nothing = r#"{"blockIO": {}, "cpu": {"realtimeRuntime": 0, "burst": 0}, "network": {}, "rdma": {}}"#;
        assert_eq!(changed(nothing), [""; 0]);
        assert_eq!(changed(r#"{"blockIO": {"weight": 200}}"#), ["blockIO"]);
        let cpu = r#"{"cpu": {"shares": 5, "realtimeRuntime": 6, "realtimePeriod": 10, "idle": 1}}"#;
        assert_eq!(changed(cpu), ["cpu.idle", "cpu.realtimeRuntime"]);
    }

    /// containerd's CRI adds the kubelet's huge pages to those that are there.
    #[test]
    fn what_is_left_out_of_an_update_is_what_the_container_was_not_made_with() {
        let made_with =
            resources(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "unified": {"memory.oom.group": "1"}}"#);
        let twice = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "2MB", "limit": 0}]}"#;
        assert_eq!(left_out(&made_with, &made_with), [""; 0]);
        assert_eq!(left_out(&resources(twice), &made_with), [""; 0]);
        let other = resources(
            r#"{"hugepageLimits": [{"pageSize": "1GB", "limit": 0}],
                "unified": {"memory.oom.group": "1", "memory.high": "5"}}"#,
        );
        assert_eq!(left_out(&other, &made_with), ["hugepageLimits.1GB", "unified.memory.high"]);
    }

    #[test]
    fn a_period_changes_while_there_is_no_quota() {
        let changes = cpu_v1(&cpu(r#"{"period": 50000}"#), 20_000);
        assert_eq!(written(&changes), ["cpu.cfs_quota_us=-1", "cpu.cfs_period_us=50000", "cpu.cfs_quota_us=20000"]);
    }

    #[test]
    fn half_of_quota_and_period_keeps_the_other() {
        assert_eq!(written(&cpu_v2(&cpu(r#"{"quota": 50000}"#), "max 200000")), ["cpu.max=50000 200000"]);
        assert_eq!(written(&cpu_v2(&cpu(r#"{"period": 50000}"#), "30000 100000\n")), ["cpu.max=30000 50000"]);
        assert_eq!(written(&cpu_v2(&cpu(r#"{"quota": -1}"#), "30000 100000\n")), ["cpu.max=max 100000"]);
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert_eq!([0, u64::MAX].map(weight), [1, 10_000]);
    }

    #[test]
    fn the_limit_of_memory_is_never_above_that_of_memory_and_swap() {
        let (limit, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let both = memory(r#"{"limit": 50, "swap": 80}"#);
        assert_eq!(written(&memory_v1(&both, 20, true)), [format!("{swap}=80"), format!("{limit}=50")]);
        assert_eq!(written(&memory_v1(&both, 100, true)), [format!("{limit}=50"), format!("{swap}=80")]);
        let unlimited = memory(r#"{"limit": -1}"#);
        assert_eq!(written(&memory_v1(&unlimited, 20, true)), [format!("{swap}=-1"), format!("{limit}=-1")]);
        assert_eq!(written(&memory_v1(&unlimited, 20, false)), [format!("{limit}=-1")]);
    }

    #[test]
    fn swap_alone_is_what_cgroup_v2_wants() {
        let now = MemoryNow { limit: 40, swap: Some(0), unreclaimable: 45 };
        let changes = |json: &str| memory_v2(&memory(json), &now).map(|changes| written(&changes));
        assert_eq!(changes(r#"{"limit": 50, "swap": 80}"#).expect("fits"), ["memory.max=50", "memory.swap.max=30"]);
        assert_eq!(changes(r#"{"swap": 60}"#).expect("fits"), ["memory.swap.max=20"]);
        assert_eq!(changes(r#"{"limit": -1}"#).expect("fits"), ["memory.max=max", "memory.swap.max=max"]);
        assert!(changes(r#"{"limit": 50, "swap": 40}"#).is_err());
        assert!(changes(r#"{"limit": -1, "swap": 40}"#).is_err());
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_refused_where_the_kernel_would_kill() {
        let now = MemoryNow { limit: UNLIMITED, swap: None, unreclaimable: 45 };
        let refusal = memory_v2(&memory(r#"{"limit": 44}"#), &now).expect_err("too small").to_string();
        assert_eq!(refusal, "cannot set memory.max to 44: 45 bytes are in use");
    }
}
