//! A buffer that is memory of the test's own.

use godwit_packet::Packet;

use super::*;

#[test]
fn a_buffer_is_one_pointer() {
    assert_eq!(size_of::<Mbuf>(), size_of::<*mut godwit_mbuf>());
    assert_eq!(size_of::<Option<Mbuf>>(), size_of::<*mut godwit_mbuf>());
}

/// A buffer whose header and data are memory of the test's, never freed through DPDK.
fn with_buffer(test: impl FnOnce(&mut Mbuf)) {
    let mut data = [0u8; 256];
    let mut header = godwit_mbuf {
        buf_addr: data.as_mut_ptr().cast(),
        data_off: 128,
        nb_segs: 1,
        buf_len: 256,
        ..godwit_mbuf::default()
    };
    // SAFETY: the header describes `data`; both outlive the buffer, which is forgotten, not dropped.
    let mut mbuf = unsafe { Mbuf::from_raw(NonNull::from(&mut header)) };
    test(&mut mbuf);
    std::mem::forget(mbuf);
}

#[test]
fn head_and_tail_move_within_the_buffer() {
    with_buffer(|m| {
        assert!(m.is_empty() && m.is_contiguous());
        m.append(4).expect("tailroom").copy_from_slice(b"tail");
        m.prepend(4).expect("headroom")[..4].copy_from_slice(b"head");
        assert_eq!(m.data(), b"headtail");
        assert_eq!((m.len(), m.frame_len(), m.headroom(), m.tailroom()), (8, 8, 124, 124));
        m.trim_front(2);
        m.truncate(4);
        assert_eq!((m.data(), m.frame_len()), (&b"adta"[..], 4));
        m.cut(1, 3);
        assert_eq!((m.data(), m.frame_len(), m.headroom()), (&b"dt"[..], 2, 127));
    });
}

#[test]
fn what_does_not_fit_changes_nothing() {
    with_buffer(|m| {
        assert!(m.prepend(129).is_none() && m.append(129).is_none() && !m.set(&[0; 129]));
        assert!(m.prepend(usize::MAX).is_none() && m.append(usize::MAX).is_none());
        assert_eq!((m.len(), m.headroom()), (0, 128));
        assert!(m.prepend(128).is_some() && m.append(128).is_some());
        assert_eq!((m.len(), m.headroom(), m.tailroom()), (256, 0, 0));
    });
}

#[test]
#[should_panic(expected = "trim_front beyond")]
fn trimming_beyond_the_end_is_a_bug() {
    with_buffer(|m| m.trim_front(1));
}

#[test]
fn set_replaces_the_content() {
    with_buffer(|m| {
        assert!(m.set(b"a long frame") && m.set(b"short"));
        assert_eq!((m.data(), m.frame_len()), (&b"short"[..], 5));
    });
}

#[test]
fn r11_what_is_left_undone_is_read_and_told() {
    with_buffer(|m| {
        assert!(m.is_plain() && m.asks() == Asks::NOTHING);
        m.header_mut().ol_flags = RX_L4_NONE;
        assert!(!m.is_plain());
        assert_eq!(m.asks(), Asks { checksum: true, segment: 0 });
        m.header_mut().ol_flags = RX_L4_NONE | RX_LRO;
        m.header_mut().tx_offload = 1448 << SEGMENT_AT;
        assert_eq!(m.asks(), Asks { checksum: true, segment: 1448 });
        m.header_mut().tx_offload = 0;
        assert_eq!(m.asks().segment, 1, "no size at all is no size of use");
        let told = Unfinished { l2_len: 18, l3_len: 40, l4_len: 32, six: true, tcp: true, segment: 1400 };
        m.hand_on(told);
        assert!(m.is_plain() && m.asks() == Asks::NOTHING);
        assert_eq!(m.offload_flags(), TX_IPV6 | TX_TCP_CKSUM | TX_TCP_SEG);
        assert_eq!(m.header().tx_offload, 18 | 40 << 7 | 32 << 16 | 1400 << 24);
        m.header_mut().ol_flags = u64::from(dpdk_sys::GODWIT_MBUF_RX_L4_CKSUM_BAD);
        assert_eq!(m.asks(), Asks::NOTHING, "a wrong checksum is the sender's own");
        assert!(!m.is_plain() && Packet::is_contiguous(&*m), "an uplink's frame goes on as it is");
        m.finished();
        assert!(m.is_plain());
        m.header_mut().nb_segs = 2;
        assert!(!m.is_plain() && !Packet::is_contiguous(&*m));
        m.header_mut().nb_segs = 1;
        assert_eq!(m.segments().count(), 1);
    });
}

#[test]
fn flags_of_ownership_cannot_be_set() {
    with_buffer(|m| {
        m.set_offload_flags(u64::MAX);
        assert_eq!(m.header().ol_flags & BUFFER_FLAGS, 0);
        m.set_offload_flags(TX_IPV4 | TX_IP_CKSUM);
        assert_eq!(m.offload_flags(), TX_IPV4 | TX_IP_CKSUM);
    });
}
