//! Units of systemd, for containers whose cgroup systemd makes: the way of the kubelet's cgroup driver `systemd`.
//!
//! systemd is asked through the system bus or, on a node without one (kind's), at its own socket, as runc does.
//! Methods, signals and properties: org.freedesktop.systemd1(5).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use dbus::Message;
use dbus::arg::{AppendAll, RefArg, Variant};
use dbus::channel::{BusType, Channel};
use dbus::strings::Path as ObjectPath;

const OWN_SOCKET: &str = "unix:path=/run/systemd/private";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// As long as runc waits. systemd may be busy with a node that starts.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon systemd answers that is not busy.
const SOON: Duration = Duration::from_millis(100);

/// A scope: a unit of processes that systemd did not start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Such as `kubepods-burstable.slice`.
    pub(crate) slice: String,
    /// Ends in `.scope`.
    pub(crate) name: String,
}

type Property = (&'static str, Variant<Box<dyn RefArg>>);

fn property(name: &'static str, value: impl RefArg + 'static) -> Property {
    (name, Variant(Box::new(value)))
}

impl Scope {
    /// Makes it with one process in it, which others may outlive. What its processes do below its cgroup is theirs.
    /// Once the last of them has ended, it and its cgroup are gone, whatever that one died of.
    ///
    /// The connection is closed by then: a process that is cloned later does not have it.
    ///
    /// # Errors
    /// There is one of that name, or no systemd that answers.
    pub(crate) fn start(&self, description: String, pid: u32) -> anyhow::Result<()> {
        let properties = vec![
            property("Description", description),
            property("Slice", self.slice.clone()),
            property("PIDs", vec![pid]),
            property("Delegate", true),
            property("DefaultDependencies", false),
            property("CollectMode", "inactive-or-failed".to_owned()),
        ];
        let started = Systemd::connect().and_then(|systemd| systemd.start_unit(&self.name, properties));
        started.with_context(|| format!("systemd does not make the unit {}", self.name))
    }

    /// Tells systemd the limits that hold in its cgroup: it writes those it knows whenever its configuration is
    /// loaded again.
    pub(crate) fn keep_limits(&self, cgroup: &Path) -> anyhow::Result<()> {
        let properties: Vec<Property> = limits(cgroup).into_iter().map(Limit::property).collect();
        let only_until_reboot = true;
        let arguments = (&*self.name, only_until_reboot, properties);
        let told = Systemd::connect().and_then(|systemd| systemd.call("SetUnitProperties", arguments));
        told.with_context(|| format!("systemd does not take the limits of the unit {}", self.name))?;
        Ok(())
    }
}

/// A connection.
struct Systemd {
    channel: Channel,
    has_bus: bool,
    deadline: Instant,
}

impl Systemd {
    fn connect() -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let no_bus = match Channel::get_private(BusType::System) {
            Ok(channel) => return Ok(Self { channel, has_bus: true, deadline }),
            Err(error) => error,
        };
        let channel = Channel::open_private(OWN_SOCKET);
        let channel =
            channel.map_err(|error| anyhow!("neither at the system bus ({no_bus}) nor by itself: {error}"))?;
        let systemd = Self { channel, has_bus: false, deadline };
        systemd.wake()?;
        Ok(systemd)
    }

    /// What systemd reads together with the end of the authentication, it leaves lying until more comes.
    fn wake(&self) -> anyhow::Result<()> {
        while Instant::now() < self.deadline {
            let ping = message(SYSTEMD, "/", "org.freedesktop.DBus.Peer", "Ping")?;
            if self.channel.send_with_reply_and_block(ping, SOON).is_ok() {
                return Ok(());
            }
        }
        bail!("no answer within {PATIENCE:?}")
    }

    fn call(&self, method: &str, arguments: impl AppendAll) -> anyhow::Result<Message> {
        let mut call = message(SYSTEMD, "/org/freedesktop/systemd1", MANAGER, method)?;
        call.append_all(arguments);
        self.send(call)
    }

    fn send(&self, call: Message) -> anyhow::Result<Message> {
        Ok(self.channel.send_with_reply_and_block(call, self.time_left())?)
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Until it is there.
    fn start_unit(&self, name: &str, properties: Vec<Property>) -> anyhow::Result<()> {
        if self.has_bus {
            let add_match = message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "AddMatch")?;
            let ended_jobs = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
            self.send(add_match.append1(ended_jobs))?;
            self.call("Subscribe", ())?;
        }
        let no_other_units: Vec<(&str, Vec<Property>)> = Vec::new();
        let answer = self.call("StartTransientUnit", (name, "replace", properties, no_other_units))?;
        let job: ObjectPath<'_> = answer.read1()?;
        let result = self.await_end_of(&job)?;
        ensure!(result == "done", "its job ended with {result:?}");
        Ok(())
    }

    fn await_end_of(&self, job: &ObjectPath<'_>) -> anyhow::Result<String> {
        while Instant::now() < self.deadline {
            while let Some(signal) = self.channel.pop_message() {
                if signal.member().is_some_and(|member| &*member == "JobRemoved") {
                    let (_, ended, _, result): (u32, ObjectPath<'_>, &str, &str) = signal.read4()?;
                    if ended == *job {
                        return Ok(result.to_owned());
                    }
                }
            }
            let more = self.channel.read_write(Some(self.time_left()));
            more.map_err(|()| anyhow!("the connection has ended"))?;
        }
        bail!("no end of its job within {PATIENCE:?}")
    }
}

fn message(destination: &str, path: &str, interface: &str, method: &str) -> anyhow::Result<Message> {
    Message::new_method_call(destination, path, interface, method).map_err(|error| anyhow!(error))
}

/// A property that is a limit.
#[derive(Debug, PartialEq, Eq)]
enum Limit {
    Number(&'static str, u64),
    /// Bit by bit, the first in the lowest.
    Set(&'static str, Vec<u8>),
}

impl Limit {
    fn property(self) -> Property {
        match self {
            Self::Number(name, number) => property(name, number),
            Self::Set(name, bits) => property(name, bits),
        }
    }
}

/// What the files of a cgroup (version 2) say. A limit that there is none of is the largest number in systemd.
fn limits(cgroup: &Path) -> Vec<Limit> {
    let text = |file| fs::read_to_string(cgroup.join(file)).ok().map(|text| text.trim().to_owned());
    let numbers = [
        ("CPUWeight", "cpu.weight"),
        ("MemoryLow", "memory.low"),
        ("MemoryMax", "memory.max"),
        ("MemorySwapMax", "memory.swap.max"),
        ("TasksMax", "pids.max"),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, file)| Some(Limit::Number(name, number(&text(file)?)?)));
    let sets = [("AllowedCPUs", "cpuset.cpus"), ("AllowedMemoryNodes", "cpuset.mems")];
    let sets = sets.into_iter().filter_map(|(name, file)| Some(Limit::Set(name, bits(&text(file)?)?)));
    let quota = text("cpu.max").as_deref().and_then(cpu_quota);
    numbers.chain(sets).chain(quota.into_iter().flatten()).collect()
}

fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// `cpu.max` is a quota of microseconds and the period it is for; systemd's quota is for a second.
fn cpu_quota(text: &str) -> Option<[Limit; 2]> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (number(quota)?, number(period)?);
    let of_a_second = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    let quota = if quota == u64::MAX { quota } else { u64::try_from(of_a_second).unwrap_or(u64::MAX) };
    Some([Limit::Number("CPUQuotaPerSecUSec", quota), Limit::Number("CPUQuotaPeriodUSec", period)])
}

/// `0-2,8` as a bit for each; none for the empty list, which is no limit.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for number in first.parse::<u16>().ok()?..=last.parse().ok()? {
            let byte = usize::from(number / 8);
            bits.resize(bits.len().max(byte + 1), 0);
            bits[byte] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_files(files: &[(&str, &str)]) -> Vec<Limit> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        limits(folder.path())
    }

    #[test]
    fn limits_are_told_as_they_stand_in_the_files() {
        let files = [("memory.max", "134217728\n"), ("pids.max", "max\n"), ("cpu.max", "50000 200000\n")];
        let expected = [
            Limit::Number("MemoryMax", 134_217_728),
            Limit::Number("TasksMax", u64::MAX),
            Limit::Number("CPUQuotaPerSecUSec", 250_000),
            Limit::Number("CPUQuotaPeriodUSec", 200_000),
        ];
        assert_eq!(of_files(&files), expected);
    }

    #[test]
    fn no_limit_of_cpu_time_is_told_as_none() {
        let expected = [Limit::Number("CPUQuotaPerSecUSec", u64::MAX), Limit::Number("CPUQuotaPeriodUSec", 100_000)];
        assert_eq!(of_files(&[("cpu.max", "max 100000\n"), ("cpuset.cpus", "\n")]), expected);
    }

    #[test]
    fn processors_are_bits() {
        assert_eq!(bits("0-2,8"), Some(vec![0b111, 1]));
        assert_eq!(bits("15"), Some(vec![0, 0b1000_0000]));
        assert_eq!((bits(""), bits("all")), (None, None));
    }
}
