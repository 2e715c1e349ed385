//! The memory that this process uses and may use, as Linux reports it in `/proc` and `/sys`. Nothing is cached.

use std::{fs, path::Path};

/// The share of the machine's memory without a control group limit: a quarter, since other services may run on it.
const SHARE_OF_MACHINE: u64 = 4;
/// The minimum: a machine too small for that share most likely runs nothing else.
const LEAST_SHARE: u64 = 256 << 20;

/// Resident bytes of this process; `None` where that cannot be read.
pub(super) fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Disables transparent huge pages: clearing 2 MiB on first use blocks a worker, with all its connections, for up to
/// milliseconds. The allocator requests them by `madvise`, so the machine's `madvise` setting does not prevent it.
pub(super) fn forgo_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "cannot do without transparent huge pages");
    }
}

/// The default limit: three quarters of the control group's limit, which is meant for this process, or a quarter of the
/// machine.
pub(super) fn budget() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)).unwrap_or(u64::MAX);
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, |path| fs::read_to_string(path).ok()));
    share(machine, group)
}

fn share(machine: u64, group: Option<u64>) -> u64 {
    let all = three_quarters(machine);
    let group = group.filter(|limit| *limit < machine).map(three_quarters);
    group.unwrap_or_else(|| (machine / SHARE_OF_MACHINE).max(LEAST_SHARE).min(all))
}

fn three_quarters(bytes: u64) -> u64 {
    bytes - bytes / 4
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit from our control group up to the root (cgroup v2).
fn group_limit(cgroup: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let folder = root.join(group);
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(root));
    folders.filter_map(|folder| read(&folder.join("memory.max"))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_control_group_gives_most_of_its_limit_and_a_machine_a_quarter() {
        assert_eq!(share(16 * GIB, None), 4 * GIB);
        assert_eq!(share(16 * GIB, Some(GIB)), GIB * 3 / 4);
        assert_eq!(share(16 * GIB, Some(64 * GIB)), 4 * GIB);
        assert_eq!(share(GIB / 2, None), GIB / 4);
        assert_eq!(share(GIB / 4, None), GIB / 16 * 3);
    }

    #[test]
    fn the_limit_is_the_lowest_of_our_group_and_those_above() {
        let read = |path: &Path| match path.to_str().unwrap() {
            "/sys/fs/cgroup/system.slice/portcullis.service/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/system.slice/memory.max" => Some("1048576\n".to_owned()),
            "/sys/fs/cgroup/memory.max" => Some("2097152\n".to_owned()),
            _ => None,
        };
        assert_eq!(group_limit("0::/system.slice/portcullis.service\n", read), Some(1 << 20));
        assert_eq!(group_limit("0::/\n", read), Some(2 << 20));
        assert_eq!(group_limit("4:memory:/docker\n", read), None);
    }

    #[test]
    fn what_the_kernel_tells_can_be_read() {
        assert_eq!(total("MemTotal:       1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert!(resident().unwrap() > 1 << 20);
        assert!(budget() > 1 << 20);
    }
}
