//! What the kernel lets the process have.

use std::io;

/// Raises the number of files that the process may open to the most that it is allowed, and returns that number.
///
/// A guest on a vhost-user socket takes some ten: its socket, its pieces of memory, and two for each ring.
///
/// # Errors
/// The kernel's.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is readable.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_the_limit_is_the_most_that_is_allowed() {
        let raised = raise_file_limit().expect("raised");
        assert_eq!(raise_file_limit().expect("raised"), raised, "there is no more");
        assert!(raised >= 256);
    }
}
