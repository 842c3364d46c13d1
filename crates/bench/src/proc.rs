//! What a process and its descendants use, as `/proc` tells.

use std::{collections::HashMap, fs};

/// Seconds of processor time of the whole tree, ended children included.
pub(crate) fn cpu_seconds(root: u32) -> f64 {
    let stats = stats();
    let ticks: u64 = tree(root, &stats).iter().map(|pid| stats[pid].ticks).sum();
    let reaped = stats.get(&root).map_or(0, |stat| stat.reaped_ticks);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
    let seconds = (ticks + reaped) as f64 / rustix::param::clock_ticks_per_second() as f64;
    seconds
}

/// Megabytes of the whole tree; what processes share is counted once (proportional set size).
pub(crate) fn megabytes(root: u32) -> f64 {
    let kilobytes = |pid: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0)
    };
    tree(root, &stats()).iter().map(kilobytes).sum::<f64>() / 1024.0
}

/// The most that one process has had in memory so far, in megabytes.
pub(crate) fn peak_megabytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    peak.trim().trim_end_matches(" kB").parse().unwrap_or(0.0) / 1024.0
}

struct Stat {
    parent: u32,
    ticks: u64,
    reaped_ticks: u64,
}

fn stats() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process that ends meanwhile is no part of it.
    pids.filter_map(|pid| Some((pid, stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// Fields are counted after the program's name, which may hold anything.
fn stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        reaped_ticks: number(13)? + number(14)?,
    })
}

fn tree(root: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut members = vec![root];
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        members.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    members.retain(|pid| stats.contains_key(pid));
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name_whatever_that_is() {
        let line = "7 (a) b) S 3 7 7 0 -1 4194304 1 2 3 4 50 60 7 8 20 0 1 0 99";
        let Stat { parent, ticks, reaped_ticks } = stat(line).unwrap();
        assert_eq!((parent, ticks, reaped_ticks), (3, 110, 15));
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(megabytes(std::process::id()) > 0.5);
        assert!(peak_megabytes(std::process::id()) > 0.5);
        assert!(cpu_seconds(std::process::id()) >= 0.0);
    }
}
