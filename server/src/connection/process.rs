//! What the operating system knows of this process and machine, from `/proc`. What is not there counts as 0 or unknown.

/// Memory that the process holds, in bytes.
pub(super) fn resident_bytes() -> u64 {
    kib_line("/proc/self/status", "VmRSS:")
}

/// Memory of the machine, in bytes.
pub(super) fn total_memory_bytes() -> u64 {
    kib_line("/proc/meminfo", "MemTotal:")
}

/// A line such as `VmRSS:   1234 kB`, in bytes.
fn kib_line(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Processor time used so far, in seconds: in the kernel, and outside of it.
pub(super) fn processor_seconds() -> (f64, f64) {
    // Linux reports these in ticks of 10 ms to user space, whatever its own clock.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses, which may hold anything, spaces too.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |index: usize| rest.split_whitespace().nth(index).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(12) / TICKS_PER_SECOND, ticks(11) / TICKS_PER_SECOND)
}

/// The operating system, as `Linux 6.1.0 x86_64`.
pub(super) fn operating_system() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let os = if cfg!(target_os = "linux") { "Linux" } else { std::env::consts::OS };
    format!("{os} {} {}", release.trim(), std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_knows_this_process() {
        assert!(resident_bytes() > 100_000);
        assert!(total_memory_bytes() > resident_bytes());
        let mut sum = 0u64;
        while processor_seconds().1 == 0.0 {
            sum = sum.wrapping_mul(31).wrapping_add(std::hint::black_box(7));
        }
        assert!(operating_system().starts_with("Linux "), "{sum}");
    }
}
