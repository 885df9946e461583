//! IGMP and MLD: what a switch reads of a tenant's frame, and what it writes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::membership::{self, Message, Wish};
use godwit_wire::{Frame, Mac, Span, igmp, mld};

use crate::frames;

/// Whatever parses is sane, and a query written anew says the same.
pub fn frame(bytes: &[u8]) {
    let Ok(frame) = Frame::read(bytes) else { return };
    match membership::read(&frame) {
        Some(Ok(Message::Report(report))) => {
            let mut count = 0;
            for (group, _) in report.wishes() {
                assert!(group.is_multicast());
                assert_eq!(group.is_ipv6(), frame.is_v6());
                count += 1;
            }
            assert!(count <= bytes.len() / 8, "a record has eight bytes at least");
        }
        Some(Ok(Message::Query(query))) => {
            assert!(query.group.is_none_or(|group| group.is_multicast()));
            let mut buf = [0; mld::MAX_FRAME_LEN];
            let (robustness, interval) = (2, Span::from_ms(125_000));
            let len = match (query.src, query.group) {
                (IpAddr::V4(src), group) => {
                    let group = group.and_then(|g| if let IpAddr::V4(g) = g { Some(g) } else { None });
                    let max_response = query.max_response.max(Span::from_ms(100));
                    let version = query.version;
                    let eth_src = Mac::ZERO;
                    igmp::QueryFrame { eth_src, src, group, version, max_response, robustness, interval }
                        .emit_frame(&mut buf)
                }
                (IpAddr::V6(src), group) => {
                    let group = group.and_then(|g| if let IpAddr::V6(g) = g { Some(g) } else { None });
                    let (max_response, version) = (query.max_response, query.version);
                    let eth_src = Mac::ZERO;
                    mld::QueryFrame { eth_src, src, group, version, max_response, robustness, interval }
                        .emit_frame(&mut buf)
                }
            };
            let written = &buf[..len.expect("the longest query fits")];
            let again = membership::read(&Frame::read(written).expect("a frame"));
            let Some(Ok(Message::Query(again))) = again else { panic!("own queries parse: {again:?}") };
            assert_eq!((again.src, again.group), (query.src, query.group));
        }
        Some(Err(_)) | None => {}
    }
}

/// Messages of all versions.
pub fn seeds() -> Vec<Vec<u8>> {
    let v4 = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1));
    let v6 = (Mac([2, 0, 0, 0, 0, 1]), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    let (g4, g6) = (Ipv4Addr::new(239, 1, 1, 1), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x42));
    let mut buf = [0; mld::MAX_FRAME_LEN];
    let wish = Wish::Member;
    let version = membership::Version::Mld2;
    let written =
        mld::ReportFrame { eth_src: v6.0, src: v6.1, group: g6, wish, version }.emit_frame(&mut buf);
    let own = buf[..written.expect("a report fits")].to_vec();
    vec![
        own,
        frames::igmp_one(v4, 0x12, g4),
        frames::igmp_one(v4, 0x16, g4),
        frames::igmp_one(v4, 0x17, g4),
        frames::igmp3_report(v4, &[(4, g4), (3, g4)], false),
        frames::igmp3_report(v4, &[(5, g4), (6, g4)], true),
        frames::igmp2_query(v4),
        frames::igmp(v4, Ipv4Addr::new(224, 0, 0, 1), [0x11, 0x8f], &[0, 0, 0, 0, 2, 125, 0, 0]),
        frames::mld_one(v6, 131, g6),
        frames::mld_one(v6, 132, g6),
        frames::mld2_report(v6, &[(4, g6), (3, g6)], false),
        frames::mld2_report(v6, &[(5, g6), (6, g6)], true),
        frames::mld1_query(v6),
    ]
}
