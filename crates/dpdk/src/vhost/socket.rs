//! The socket of a vhost-user port: the way cleared for it, and never at the cost of somebody else's file.
//!
//! librte_vhost takes a path that it cuts off, and where it cannot listen it removes whatever is there. So all of that
//! is decided here, before the library is asked.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::args::{self, Options};

/// The socket of a vhost-user port, as its arguments give it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VhostSocket {
    /// The key that names the path.
    key: &'static str,
    path: PathBuf,
    pub(super) options: Options,
}

/// Why a vhost-user port cannot be made: what is wrong, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct SocketError {
    /// What is wrong, and with which path or argument.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

pub(super) fn refuse<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, SocketError> {
    Err(SocketError { what: what.into(), remedy: remedy.into() })
}

impl VhostSocket {
    /// Reads the arguments of a device, `vhost=PATH` or `net_vhost0,iface=PATH` and further ones; `None` for a device
    /// of another kind. Touches no file.
    ///
    /// # Errors
    /// An unknown argument or one given twice, a value out of its range, an empty or too long path.
    pub fn parse(devargs: &str) -> Result<Option<VhostSocket>, SocketError> {
        let Some((key, path, options)) = args::read(devargs)? else { return Ok(None) };
        Ok(Some(VhostSocket { key, path: path.into(), options }))
    }

    /// The path with the key that it is given by, such as `vhost=/run/v1.sock`.
    pub fn shown(&self) -> String {
        format!("{}={}", self.key, self.path.display())
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
        let connects = self.options.client;
        let found = if connects { self.path.metadata() } else { self.path.symlink_metadata() };
        let shown = self.shown();
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
                refuse(format!("{shown} is {kind}"), "name a path where there is nothing yet")
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => refuse(format!("{shown} cannot be looked at: {e}"), "name another path"),
        }
    }

    /// Removes a socket that a switch left behind when it was killed: one that nobody holds any more. Says whether
    /// there was one. The socket of a device that is the connecting side is its guest's, and left alone.
    ///
    /// # Errors
    /// Something that is no socket is there, somebody holds the socket, or its folder is absent or may not be
    /// changed. Nothing was touched then.
    pub(crate) fn clear_the_way(&self) -> Result<bool, SocketError> {
        let shown = self.shown();
        let there = self.is_there()?;
        if self.options.client {
            return Ok(false);
        }
        if !there {
            let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty());
            return match folder {
                Some(f) if !f.is_dir() => {
                    refuse(format!("{shown}: there is no folder {}", f.display()), "make it")
                }
                _ => Ok(false),
            };
        }
        match held(&self.path) {
            Ok(true) => refuse(
                format!("{shown} is in use: another process listens there"),
                "stop that process, or name another path",
            ),
            Ok(false) => match std::fs::remove_file(&self.path) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                Err(e) => refuse(format!("the stale socket {shown} stays: {e}"), "remove it"),
            },
            Err(e) => refuse(format!("{shown}: whether it is in use is not known: {e}"), "name another path"),
        }
    }
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
