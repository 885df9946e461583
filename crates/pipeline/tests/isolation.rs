//! Two VNs that use the same addresses, and a million frames (R13).

use std::net::{IpAddr, Ipv4Addr};

use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::Packet;
use godwit_tables::update::*;
use godwit_testkit::{Rng, frames};
use godwit_wire::{Mac, Vni};

const FRAMES: usize = 1_000_000;
const BURST: usize = 64;

/// In both VNs here, in both VNs behind the same tunnel, and here in one of them only.
const HERE: [Mac; 2] = [M1, M2];
const THERE: [Mac; 2] = [R4, R6];
const SPLIT: [Mac; 2] = [mac(0x51), mac(0x52)];

/// Where a MAC of a VN is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Port(PortIdx),
    Tunnel(TunnelIdx),
}

/// One of the two VNs.
struct Net {
    vn: VnIdx,
    vni: Vni,
    /// Each MAC has the same address in both.
    vms: Vec<(Mac, Place)>,
}

impl Net {
    fn pair() -> [Net; 2] {
        let net = |vn, vni, ports: [u16; 3], here: usize| {
            let [first, second, third] = ports.map(|p| Place::Port(PortIdx(p)));
            let vms = vec![
                (HERE[0], first),
                (HERE[1], second),
                (THERE[0], Place::Tunnel(T4)),
                (THERE[1], Place::Tunnel(T6)),
                (SPLIT[here], third),
                (SPLIT[1 - here], Place::Tunnel([T4, T6][here])),
            ];
            Net { vn, vni, vms }
        };
        [net(VN, vni(), [1, 2, 5], 0), net(OTHER_VN, other_vni(), [3, 4, 6], 1)]
    }

    fn ports(&self) -> impl Iterator<Item = (Mac, PortIdx)> + '_ {
        self.vms.iter().filter_map(|(mac, at)| match at {
            Place::Port(port) => Some((*mac, *port)),
            Place::Tunnel(_) => None,
        })
    }
}

/// A frame, and what must become of it. The payload names the VN.
struct Case {
    frame: Vec<u8>,
    to: PortIdx,
    /// The frame as it is delivered, or the inner one, whose VNI and remote locator follow.
    want: Vec<u8>,
    tunnelled: Option<(Vni, IpAddr)>,
}

fn address(mac: Mac) -> IpAddr {
    v4(mac.0[5]).into()
}

fn tagged_frame(net: &Net, from: Mac, to: Mac) -> Vec<u8> {
    let payload = [&net.vni.get().to_be_bytes()[..], &[0x77; 8]].concat();
    frames::udp_frame((from, address(from), 1000), (to, address(to), 2000), &payload)
}

/// What enters by each port: from every VM to every other one of its VN, and questions for every address; from
/// both other NVEs for every VM here.
fn cases(nets: &[Net; 2]) -> Vec<(PortIdx, Vec<Case>)> {
    let mut all = Vec::new();
    let mut from_overlay = Vec::new();
    for net in nets {
        for (from, port) in net.ports() {
            let mut sent = Vec::new();
            for &(to, at) in net.vms.iter().filter(|(to, _)| *to != from) {
                let frame = tagged_frame(net, from, to);
                let (exit, tunnelled) = match at {
                    Place::Port(exit) => (exit, None),
                    Place::Tunnel(T4) => (UPLINK, Some((net.vni, NVE_B.into()))),
                    Place::Tunnel(_) => (UPLINK, Some((net.vni, NVE_B6.into()))),
                };
                sent.push(Case { want: frame.clone(), frame, to: exit, tunnelled });
            }
            // The same address is another VM's in each of them.
            let owner = asked_owner(net);
            let frame = frames::arp_request(from, v4(from.0[5]), ASKED);
            let want = frames::arp_reply(owner, ASKED, from, v4(from.0[5]));
            sent.push(Case { frame, to: port, want, tunnelled: None });
            all.push((port, sent));
        }
        for (from, remote) in [(THERE[0], IpAddr::from(NVE_B)), (THERE[1], NVE_B6.into())] {
            for (to, port) in net.ports() {
                let want = tagged_frame(net, from, to);
                let frame = vxlan_from(remote, net.vni).frame(&want);
                from_overlay.push(Case { frame, to: port, want, tunnelled: None });
            }
        }
    }
    all.push((UPLINK, from_overlay));
    all
}

/// An address that each VN has, too, and whose it is there.
const ASKED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

fn asked_owner(net: &Net) -> Mac {
    if net.vn == VN { mac(0xa1) } else { mac(0xa2) }
}

fn lab(nets: &[Net; 2]) -> Lab {
    let mut lab = Lab::new();
    for net in nets {
        for &(mac, at) in &net.vms {
            let state = match at {
                Place::Port(port) => {
                    lab.access(port, net.vn, mac, Admission::Activated);
                    VmState::Local { port }
                }
                Place::Tunnel(tunnel) => VmState::Remote { to: Target { tunnel, vni: net.vni } },
            };
            lab.apply(Update::VmSet { key: Key::new(net.vn, mac), state });
        }
        let owner = asked_owner(net);
        lab.apply(Update::NeighborSet { vn: net.vn, ip: ASKED.into(), mac: owner, router: false });
    }
    lab
}

/// Leaves the buffer as it was before `frame` was put into it: outer headers come and go before the frame.
fn give_back(mut packet: MemPacket, entered: usize) -> MemPacket {
    let (len, now) = (entered, packet.data().len());
    if now > len {
        packet.trim_front(now - len);
    } else {
        packet.prepend(len - now).expect("that room was there");
    }
    packet
}

#[test]
fn r13_a_million_frames_leak_nowhere() {
    let nets = Net::pair();
    let (mut lab, cases, mut draw) = (lab(&nets), cases(&nets), Rng::new(1871));
    let mut buffers: Vec<MemPacket> = (0..BURST).map(|_| MemPacket::new(&[])).collect();
    let (mut burst, mut chosen) = (Vec::with_capacity(BURST), Vec::with_capacity(BURST));
    let mut ways = [[0_u64; 3]; 2];
    let start = std::time::Instant::now();
    for _ in 0..FRAMES / BURST {
        // The uplink, where both VNs come in one burst, as often as all the VMs together.
        let (port, choice) =
            if draw.index(2) == 0 { cases.last() } else { cases.get(draw.index(6)) }.unwrap();
        chosen.clear();
        for mut packet in buffers.drain(..) {
            let case = &choice[draw.index(choice.len())];
            assert!(packet.set(&case.frame));
            burst.push(packet);
            chosen.push(case);
        }
        lab.pipe.process(&mut burst, *port, &mut lab.tables, &mut lab.out, &mut lab.pool, lab.now);
        assert_eq!(lab.out.sent.len(), BURST, "each leads to one frame, in order");
        for ((exit, packet), case) in lab.out.sent.drain(..).zip(&chosen) {
            assert_eq!(exit, case.to);
            let net = match case.tunnelled {
                Some((vni, remote)) => {
                    let (outer, inner) = open(packet.data());
                    assert_eq!((outer.vni, outer.dst), (vni, remote));
                    assert!(inner == case.want);
                    usize::from(vni != nets[0].vni)
                }
                None => {
                    assert!(packet.data() == case.want);
                    usize::from(!nets[0].ports().any(|(_, p)| p == exit))
                }
            };
            let way = if exit == UPLINK { 0 } else { 1 + usize::from(*port == UPLINK) };
            ways[net][way] += 1;
            buffers.push(give_back(packet, case.frame.len()));
        }
    }
    println!("{FRAMES} frames in {:?}; by VN to tunnels, local, from the overlay: {ways:?}", start.elapsed());
    assert_eq!(ways.iter().flatten().sum::<u64>(), FRAMES as u64);
    assert!(ways.iter().flatten().all(|n| *n > 100_000), "{ways:?}");
    let total = lab.tables.counters.total();
    assert_eq!((total.rx_packets, total.tx_packets), (FRAMES as u64, FRAMES as u64));
    assert_eq!((total.dropped(), lab.tables.waiting(), lab.take_events()), (0, 0, vec![]));
}
