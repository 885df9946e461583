//! The archive that a Linux kernel unpacks as its first root file system ("newc", uncompressed).

use std::collections::BTreeMap;

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
pub fn archive(nodes: &BTreeMap<String, Node>) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (path, node)) in (1..).zip(nodes) {
        let (mode, content, device): (u32, &[u8], (u32, u32)) = match node {
            Node::Folder => (0o040_755, &[], (0, 0)),
            Node::File { mode, content } => (0o100_000 | mode, content, (0, 0)),
            Node::Link(to) => (0o120_777, to.as_bytes(), (0, 0)),
            Node::Device { major, minor } => (0o020_600, &[], (*major, *minor)),
        };
        entry(&mut out, number, mode, path, content, device);
    }
    entry(&mut out, 0, 0, "TRAILER!!!", &[], (0, 0));
    out
}

fn entry(out: &mut Vec<u8>, number: u32, mode: u32, path: &str, content: &[u8], device: (u32, u32)) {
    // Inode, mode, user, group, links, time, size, device of the file system, device itself, length of
    // the name with its end, check sum.
    let fields = [number, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, device.0, device.1];
    out.extend(b"070701");
    for field in fields.into_iter().chain([path.len() as u32 + 1, 0]) {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(path.bytes());
    out.push(0);
    pad(out);
    out.extend(content);
    pad(out);
}

/// Headers and contents begin at multiples of four bytes.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
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
        let bytes = archive(&nodes);
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
