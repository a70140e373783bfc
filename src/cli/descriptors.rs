//! Raises the limit of open files as far as the system lets a process, and accepts no more connections than fit into it:
//! more would take the descriptors that serving a request needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many descriptors the process itself needs: for files, readers of the database, listeners and whoever asks for
/// metrics.
const OWN: u64 = 128;
/// How many descriptors a connection needs: it may have another one behind it, to an upstream or a machine.
const EACH: u64 = 2;

/// Raises the limit as far as it goes. Returns how many connections fit.
pub fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // A process that may not raise the limit keeps the one that it has.
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
    }
    fitting(getrlimit(Resource::Nofile).current)
}

/// How many connections fit into so many open files; none means that there is no limit.
fn fitting(files: Option<u64>) -> usize {
    let Some(files) = files else { return usize::MAX };
    let fit = files.saturating_sub(OWN) / EACH;
    usize::try_from(fit).unwrap_or(usize::MAX).max(1)
}

/// How many connections may be open at the same time. It is logged if that is less than was configured.
pub fn connections(wanted: usize) -> usize {
    let fit = raise();
    if fit < wanted {
        tracing::warn!(
            max_connections = wanted,
            taken = fit,
            "--max-connections does not fit into the limit of open files; further connections wait. Raise the limit \
             (ulimit -n, LimitNOFILE=), or lower --max-connections"
        );
    }
    wanted.min(fit)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn what_answering_needs_is_left_over() {
        assert_eq!(fitting(Some(1_024)), 448);
        assert_eq!(fitting(Some(100)), 1);
        assert_eq!(fitting(None), usize::MAX);
    }
}
