//! The agent at the end of a virtual serial line, as a guest has it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Guest;

/// How often a line that nobody holds the other end of is looked at.
const IDLE: Duration = Duration::from_millis(5);

/// Serves the lab over a virtio-serial port until it says [`super::Request::Quit`].
///
/// The lab's end may go and come back, as it does when the guest is migrated; what was half said
/// then is forgotten.
///
/// # Errors
/// Where the device cannot be opened.
pub fn serve(path: &Path) -> Result<()> {
    let open = || File::options().read(true).write(true).open(path);
    let port = open().with_context(|| format!("opening {}", path.display()))?;
    let mut guest = Guest::default();
    loop {
        match guest.converse(&port, &port) {
            Ok(true) => return Ok(()),
            // The device reads as ended, or fails, while the other end is not held.
            Ok(false) | Err(_) => std::thread::sleep(IDLE),
        }
    }
}
