//! The body of the fuzz target of datagrams between NVEs.

use godwit_wire::Mac;
use godwit_wire::peer::{self, BODY_LEN, Datagram, HEAD_LEN, Head, LEN, MAX_FRAME_LEN, Notice};

/// A frame from the underlay that may carry a datagram of another NVE, and bytes that may be its body (R47): what is
/// read is what was written, and what was read is written as it came.
pub fn peer(bytes: &[u8]) {
    if let Ok(received) = peer::parse(bytes) {
        let head = Head::parse(received.datagram).expect("its first bytes were looked at");
        assert_eq!(head.emit(), received.datagram[..HEAD_LEN]);
        let mut frame = [0; MAX_FRAME_LEN];
        let ends = (received.src, received.dst);
        let len = peer::emit_frame(&mut frame, (Mac::ZERO, Mac::ZERO), ends, received.datagram)
            .expect("there is room, and both locators are of one family");
        assert_eq!(peer::parse(&frame[..len]), Ok(received));
    }
    if let Some(body) = bytes.first_chunk::<BODY_LEN>()
        && let Ok(notice) = Notice::parse(body)
    {
        assert_eq!(Notice::parse(&notice.emit()), Ok(notice));
    }
}

/// Frames with datagrams over both families, and the body of one.
pub fn seeds() -> Vec<Vec<u8>> {
    let head = Head { key: 7, sender: 3, counter: 99 };
    let mut datagram: Datagram = [0x5a; LEN];
    datagram[..HEAD_LEN].copy_from_slice(&head.emit());
    let macs = (Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 1, 2]));
    let v4 = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let v6 = ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into());
    let frame = |ends| {
        let mut frame = vec![0; MAX_FRAME_LEN];
        let len = peer::emit_frame(&mut frame, macs, ends, &datagram).expect("there is room");
        frame.truncate(len);
        frame
    };
    let redirect = Notice {
        kind: peer::Kind::Redirect,
        vni: godwit_wire::Vni::from_low24(0x12_3456),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        version: (1, 2),
        v4: Some([192, 0, 2, 1].into()),
        v6: None,
    };
    let marker = Notice { kind: peer::Kind::PathEnd, ..redirect };
    vec![frame(v4), frame(v6), redirect.emit().to_vec(), marker.emit().to_vec()]
}
