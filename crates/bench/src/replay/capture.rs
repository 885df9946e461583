//! A capture, laid out for being copied from.

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Line(pub [u8; LINE]);

/// Bytes of a line.
pub const LINE: usize = 64;

/// Where a frame is.
#[derive(Clone, Copy)]
pub struct Frame {
    /// Its first line.
    pub first: u32,
    /// Its length in bytes.
    pub len: u16,
}

/// The frames of a capture, each from the beginning of a line.
pub struct Capture {
    /// Their bytes, zero behind each frame up to the end of its last line.
    pub lines: Vec<Line>,
    /// One after the other.
    pub frames: Vec<Frame>,
}

/// Why bytes are no capture that can be played.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCapture {
    /// Another format, or a pcap file of another byte order.
    #[error("this is no little-endian pcap file")]
    Format,
    /// The capture is empty.
    #[error("there is no frame in it")]
    NoFrame,
    /// The file ends within a record.
    #[error("the record at byte {at} goes beyond the end of the file")]
    Truncated {
        /// Where the record begins.
        at: usize,
    },
    /// A frame without bytes.
    #[error("the record at byte {at} has no bytes")]
    Empty {
        /// Where the record begins.
        at: usize,
    },
    /// A frame longer than any.
    #[error("the record at byte {at} has {len} bytes")]
    TooLong {
        /// Where the record begins.
        at: usize,
        /// The frame's length in bytes.
        len: usize,
    },
    /// More frames than a [`Frame`] can point to.
    #[error("the record at byte {at} is beyond 256 GiB of frames")]
    TooMany {
        /// Where the record begins.
        at: usize,
    },
}

/// Bytes before the first record, and of each record's header.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// Little-endian, microseconds or nanoseconds.
const MAGIC: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Capture {
    /// Reads a little-endian pcap file with at least one frame.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(bytes: &[u8]) -> Result<Capture, BadCapture> {
        if !word(bytes, 0).is_some_and(|magic| MAGIC.contains(&magic)) || bytes.len() < FILE_HEADER {
            return Err(BadCapture::Format);
        }
        let mut capture = Capture { lines: Vec::new(), frames: Vec::new() };
        let mut at = FILE_HEADER;
        while at < bytes.len() {
            let len = word(bytes, at + 8).and_then(|len| usize::try_from(len).ok());
            let frame = len.and_then(|len| bytes.get(at + RECORD_HEADER..)?.get(..len));
            let frame = frame.ok_or(BadCapture::Truncated { at })?;
            capture.push(at, frame)?;
            at += RECORD_HEADER + frame.len();
        }
        if capture.frames.is_empty() {
            return Err(BadCapture::NoFrame);
        }
        Ok(capture)
    }

    /// Adds the frame of the record that begins at byte `at`.
    fn push(&mut self, at: usize, frame: &[u8]) -> Result<(), BadCapture> {
        if frame.is_empty() {
            return Err(BadCapture::Empty { at });
        }
        let len = u16::try_from(frame.len()).map_err(|_| BadCapture::TooLong { at, len: frame.len() })?;
        let first = u32::try_from(self.lines.len()).map_err(|_| BadCapture::TooMany { at })?;
        self.lines.extend(frame.chunks(LINE).map(|chunk| {
            let mut line = Line([0; LINE]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        }));
        self.frames.push(Frame { first, len });
        Ok(())
    }

    /// A frame's lines.
    pub fn lines_of(&self, frame: Frame) -> &[Line] {
        &self.lines[frame.first as usize..][..usize::from(frame.len).div_ceil(LINE)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcap(frames: &[&[u8]]) -> Vec<u8> {
        let mut all = MAGIC[0].to_le_bytes().to_vec();
        all.resize(FILE_HEADER, 0);
        for frame in frames {
            all.extend([0; 8]);
            all.extend((frame.len() as u32).to_le_bytes().repeat(2));
            all.extend(*frame);
        }
        all
    }

    #[test]
    fn frames_begin_with_a_line_each() {
        let (short, long) = ([1; 60], [2; 130]);
        let capture = Capture::parse(&pcap(&[&short, &long, &short])).unwrap();
        assert_eq!(
            capture.frames.iter().map(|f| (f.first, f.len)).collect::<Vec<_>>(),
            [(0, 60), (1, 130), (4, 60)]
        );
        let bytes: Vec<u8> = capture.lines_of(capture.frames[1]).iter().flat_map(|l| l.0).collect();
        assert_eq!((&bytes[..130], &bytes[130..]), (&long[..], &[0; 62][..]));
    }

    #[test]
    fn what_is_no_capture_is_refused_with_the_place() {
        let whole = pcap(&[&[1; 60], &[2; 60]]);
        let why = |bytes: &[u8]| Capture::parse(bytes).err().unwrap().to_string();
        assert!(why(b"nothing of the kind").contains("no little-endian pcap"));
        assert!(why(&whole[..FILE_HEADER]).contains("no frame"));
        assert!(why(&whole[..20]).contains("no little-endian pcap"));
        for end in [whole.len() - 1, whole.len() - 60, whole.len() - 70] {
            assert!(why(&whole[..end]).contains("at byte 100 goes beyond"), "{end}");
        }
        assert!(why(&pcap(&[&[]])).contains("has no bytes"));
        assert!(why(&pcap(&[&[0; 70_000]])).contains("70000 bytes"));
    }
}
