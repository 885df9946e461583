//! The archive that a Linux kernel unpacks as its first root file system ("newc", uncompressed).

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use cpio::newc::Builder;

/// One path of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file with its permissions.
    File {
        /// Permission bits.
        mode: u32,
        /// Its content.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link(String),
    /// A character device.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// The whole archive; paths begin without a slash, and parents sort before what is in them.
///
/// # Errors
/// Where a file is larger than the format can say.
pub fn archive(nodes: &BTreeMap<String, Node>) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for (number, (path, node)) in (1..).zip(nodes) {
        let (mode, content, (major, minor)): (u32, &[u8], (u32, u32)) = match node {
            Node::Folder => (0o040_755, &[], (0, 0)),
            Node::File { mode, content } => (0o100_000 | mode, content, (0, 0)),
            Node::Link(to) => (0o120_777, to.as_bytes(), (0, 0)),
            Node::Device { major, minor } => (0o020_600, &[], (*major, *minor)),
        };
        let entry = Builder::new(path).ino(number).mode(mode).rdev_major(major).rdev_minor(minor);
        let size = content.len().try_into().map_err(io::Error::other)?;
        let mut entry = entry.write(&mut out, size);
        entry.write_all(content)?;
        entry.finish()?;
    }
    cpio::newc::trailer(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let nodes = BTreeMap::from([
            ("etc".to_owned(), Node::Folder),
            ("etc/motd".to_owned(), Node::File { mode: 0o644, content: b"hello".to_vec() }),
            ("sh".to_owned(), Node::Link("bin/sh".into())),
        ]);
        let bytes = archive(&nodes).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let headers: Vec<usize> = (0..bytes.len() - 6).filter(|&i| &bytes[i..i + 6] == b"070701").collect();
        assert_eq!(headers.len(), 4);
        assert!(headers.iter().all(|h| h % 4 == 0));
        let file = &bytes[headers[1]..];
        assert_eq!(&file[14..22], b"000081a4", "a regular file, rw-r--r--");
        assert_eq!(&file[54..62], b"00000005", "five bytes");
        // 110 bytes of header and 9 of name, filled up to 120.
        assert_eq!(&file[110..119], b"etc/motd\0");
        assert_eq!(&file[120..125], b"hello");
    }
}
