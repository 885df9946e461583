//! Arguments of vhost-user devices (`net_vhost`), checked before DPDK sees them, and the way cleared for their sockets.
//!
//! DPDK takes arguments that it cannot serve: a path that it cuts off, more queues than its library has rings. Where it
//! cannot listen at the path, it removes whatever is there. So all of that is decided here, before the device is made.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket, in bytes: the kernel's `sun_path` less the byte that ends it.
pub const MAX_SOCKET_PATH: usize = 107;

/// Most pairs of queues of a vhost-user device: librte_vhost has 256 rings a guest.
pub const MAX_VHOST_QUEUES: u16 = 128;

/// Names under which DPDK knows the driver, each followed by whatever tells one device from another.
const DRIVERS: [&str; 2] = ["net_vhost", "eth_vhost"];

/// The socket of a vhost-user device, as its arguments give it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VhostSocket {
    path: PathBuf,
    client: bool,
}

/// Why a vhost-user device cannot be made: what is wrong, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct SocketError {
    /// What is wrong, and with which path or argument.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

fn refuse<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, SocketError> {
    Err(SocketError { what: what.into(), remedy: remedy.into() })
}

impl VhostSocket {
    /// Reads the arguments of a device; `None` for a device of another driver. Touches no file.
    ///
    /// # Errors
    /// No path or two, an empty or too long one, a number of queues that the library does not have.
    pub fn parse(devargs: &str) -> Result<Option<VhostSocket>, SocketError> {
        let devargs = devargs.trim_start();
        let devargs = devargs.strip_prefix("vdev:").unwrap_or(devargs);
        if !DRIVERS.iter().any(|driver| devargs.starts_with(driver)) {
            return Ok(None);
        }
        let Some(path) = argument(devargs, "iface")? else {
            return refuse("iface is missing", "add iface=PATH, the path of the guest's socket");
        };
        if path.is_empty() {
            return refuse("iface is empty", "give the path of the guest's socket");
        }
        if path.len() > MAX_SOCKET_PATH {
            let what = format!("iface={path} has {} bytes", path.len());
            return refuse(what, format!("the path of a socket has at most {MAX_SOCKET_PATH}"));
        }
        if let Some(queues) = argument(devargs, "queues")? {
            let plain = queues.bytes().all(|b| b.is_ascii_digit()) && !queues.starts_with('0');
            let number = queues.parse::<u16>().ok().filter(|n| plain && (1..=MAX_VHOST_QUEUES).contains(n));
            if number.is_none() {
                let what = format!("queues={queues} is out of range");
                return refuse(what, format!("use 1 to {MAX_VHOST_QUEUES}"));
            }
        }
        let client = argument(devargs, "client")?.is_some_and(|value| value != "0");
        Ok(Some(VhostSocket { path: path.into(), client }))
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`canonical_socket`].
    pub fn canonical(&self) -> PathBuf {
        canonical_socket(&self.path)
    }

    /// Looks at what is at the path, and touches nothing. An absent folder is no mistake yet: it may be made before
    /// the device is.
    ///
    /// # Errors
    /// Something that is no socket is there.
    pub fn check(&self) -> Result<(), SocketError> {
        self.is_there().map(|_| ())
    }

    /// Whether there is a socket.
    fn is_there(&self) -> Result<bool, SocketError> {
        // Who connects follows a link, who listens does not.
        let found = if self.client { self.path.metadata() } else { self.path.symlink_metadata() };
        let shown = self.path.display();
        match found {
            Ok(there) if there.file_type().is_socket() => Ok(true),
            Ok(there) => {
                let kind = there.file_type();
                let kind = match () {
                    () if kind.is_dir() => "a folder",
                    () if kind.is_symlink() => "a symbolic link",
                    () if kind.is_file() => "an ordinary file",
                    () => "no socket",
                };
                refuse(format!("iface={shown} is {kind}"), "name a path where there is nothing yet")
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => refuse(format!("iface={shown} cannot be looked at: {e}"), "name another path"),
        }
    }

    /// Removes a socket that a switch left behind when it was killed: one that nobody holds any more. Says whether
    /// there was one. The socket of a device that is the connecting side is its guest's, and left alone.
    ///
    /// # Errors
    /// Something that is no socket is there, somebody holds the socket, or its folder is absent or may not be
    /// changed. Nothing was touched then.
    pub(crate) fn clear_the_way(&self) -> Result<bool, SocketError> {
        let shown = self.path.display();
        let there = self.is_there()?;
        if self.client {
            return Ok(false);
        }
        if !there {
            let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty());
            return match folder {
                Some(f) if !f.is_dir() => {
                    refuse(format!("iface={shown}: there is no folder {}", f.display()), "make it")
                }
                _ => Ok(false),
            };
        }
        match held(&self.path) {
            Ok(true) => refuse(
                format!("iface={shown} is in use: another process listens there"),
                "stop that process, or name another path",
            ),
            Ok(false) => match std::fs::remove_file(&self.path) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                Err(e) => refuse(format!("the stale socket iface={shown} stays: {e}"), "remove it"),
            },
            Err(e) => {
                refuse(format!("iface={shown}: whether it is in use is not known: {e}"), "name another path")
            }
        }
    }
}

/// The value of an argument of a device.
fn argument<'a>(devargs: &'a str, key: &str) -> Result<Option<&'a str>, SocketError> {
    let mut values =
        devargs.split(',').skip(1).filter_map(|arg| arg.split_once('=')).filter(|(k, _)| *k == key);
    let value = values.next().map(|(_, value)| value);
    if values.next().is_some() {
        return refuse(format!("{key} is given twice"), "keep one of them");
    }
    Ok(value)
}

/// Whether a process has the socket open. A datagram socket cannot connect to a stream socket, and the kernel says so
/// only of one that is open; so the answer disturbs nobody and never waits, unlike a connection, which a listener
/// would have to take.
fn held(path: &Path) -> std::io::Result<bool> {
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The path by which two names of one socket are recognized, there or not yet: absolute, without links as far as its
/// folders exist.
pub fn canonical_socket(path: &Path) -> PathBuf {
    if let Ok(whole) = path.canonicalize() {
        return whole;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent(), absolute.file_name()) {
        (Some(folder), Some(name)) if folder.as_os_str().as_bytes() != b"/" => {
            canonical_socket(folder).join(name)
        }
        _ => absolute,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn socket(devargs: &str) -> VhostSocket {
        VhostSocket::parse(devargs).expect("good").expect("a vhost-user device")
    }

    #[track_caller]
    fn refused(devargs: &str, wanted: &str) {
        let error = VhostSocket::parse(devargs).expect_err(devargs).to_string();
        assert!(error.contains(wanted), "{devargs}: {error:?} says {wanted:?}");
    }

    #[test]
    fn r18_arguments_out_of_range_are_refused_with_the_bound() {
        assert_eq!(VhostSocket::parse("net_tap0,iface=tap0"), Ok(None));
        assert_eq!(VhostSocket::parse("0000:03:00.0"), Ok(None));
        let long = format!("/{}", "x".repeat(MAX_SOCKET_PATH - 1));
        assert_eq!(socket(&format!("net_vhost0,iface={long}")).path(), Path::new(&long));
        refused(&format!("net_vhost0,iface={long}y"), "has 108 bytes; the path of a socket has at most 107");
        refused("net_vhost0,iface=", "iface is empty");
        refused("vdev:eth_vhost0,queues=2", "iface is missing");
        refused("net_vhost0", "iface is missing");
        refused("net_vhost0,iface=/a,iface=/b", "iface is given twice");
        for good in ["1", "2", "128"] {
            socket(&format!("net_vhost0,iface=/a,queues={good}"));
        }
        // DPDK would read 010 as eight, and 65537 as one.
        for bad in ["0", "129", "200", "65537", "-1", "", "x", "010", "0x10"] {
            refused(&format!("net_vhost0,iface=/a,queues={bad}"), "use 1 to 128");
        }
    }

    #[test]
    fn r18_two_names_of_one_socket_are_recognized() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real");
        std::fs::create_dir(&real).expect("a folder");
        std::os::unix::fs::symlink(&real, folder.path().join("link")).expect("a link");
        let at =
            |path: &str| socket(&format!("net_vhost0,iface={}/{path}", folder.path().display())).canonical();
        assert_eq!(at("link/a.sock"), at("real/a.sock"));
        assert_eq!(at("real/../link/./a.sock"), at("real/a.sock"));
        assert_ne!(at("real/b.sock"), at("real/a.sock"));
        // Before its folder is there, too, and for a relative path.
        assert_eq!(at("link/later/a.sock"), at("real/later/a.sock"));
        let here = std::env::current_dir().expect("a folder").join("a.sock");
        assert_eq!(socket("net_vhost0,iface=a.sock").canonical(), here);
    }

    #[test]
    fn r18_only_a_socket_that_nobody_holds_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        let devargs = format!("net_vhost0,iface={}", path.display());
        assert_eq!(socket(&devargs).clear_the_way(), Ok(false), "there is nothing");

        let listener = UnixListener::bind(&path).expect("a listener");
        let error = socket(&devargs).clear_the_way().expect_err("somebody listens").to_string();
        assert!(error.contains("another process listens") && error.contains("a.sock"), "{error}");
        listener.set_nonblocking(true).expect("set");
        assert!(listener.accept().is_err(), "the listener was not disturbed");
        UnixStream::connect(&path).expect("it still listens");
        let connecting = socket(&format!("{devargs},client=1"));
        assert_eq!(connecting.clear_the_way(), Ok(false), "where the guest listens, its socket is wanted");

        drop(listener);
        assert_eq!(connecting.clear_the_way(), Ok(false));
        assert!(path.exists(), "the guest's, though it is gone");
        assert_eq!(socket(&devargs).clear_the_way(), Ok(true), "stale");
        assert!(!path.exists());

        // A socket of another kind is somebody's as well.
        let datagrams = UnixDatagram::bind(&path).expect("a socket");
        socket(&devargs).clear_the_way().expect_err("somebody holds it");
        drop(datagrams);
        assert_eq!(socket(&devargs).clear_the_way(), Ok(true));

        std::fs::write(&path, "keep me").expect("a file");
        for devargs in [devargs.clone(), format!("{devargs},client=1")] {
            let error = socket(&devargs).clear_the_way().expect_err("an ordinary file").to_string();
            assert!(error.contains("is an ordinary file") && error.contains("a.sock"), "{error}");
            assert_eq!(socket(&devargs).check().expect_err("an ordinary file").to_string(), error);
        }
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "keep me");
        std::fs::remove_file(&path).expect("removed");
        let target = folder.path().join("target.sock");
        drop(UnixListener::bind(&target).expect("a listener"));
        std::os::unix::fs::symlink(&target, &path).expect("a link");
        let error = socket(&devargs).clear_the_way().expect_err("a link").to_string();
        assert!(error.contains("is a symbolic link") && target.exists(), "{error}");
        let inside = format!("net_vhost0,iface={}/no/a.sock", folder.path().display());
        let error = socket(&inside).clear_the_way().expect_err("no folder").to_string();
        assert!(error.contains("there is no folder") && error.contains("make it"), "{error}");
        assert_eq!(socket(&inside).check(), Ok(()));
    }
}
