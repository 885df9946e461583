//! Random orders of control.

use super::*;

impl Lab {
    pub fn other(&mut self, kind: u8, m: Mac, n: u8) {
        let until = self.now + ms(10);
        let tunnel = TunnelIdx(u32::from(n % 4));
        match kind {
            0 => self.apply(Update::VmRemove { key: key(m) }),
            1 | 2 => self.neighbor(v4(n), m),
            3 => self.neighbor(v6(n.into()), m),
            4 => self.apply(Update::NeighborAbsent { vn: VN, ip: v4(n).into(), until }),
            5 => self.apply(Update::NeighborRemove { vn: VN, ip: v6(n.into()).into() }),
            6 => self.apply(Update::VnRemove { vn: VN }),
            7 | 8 => self.vn(VN, vni(), n & 1 == 0),
            9 => self.apply(Update::PortRemove { port: P2 }),
            10 => self.access(P2, VN, M2, Admission::Associated),
            11 | 12 => self.access(P2, VN, M2, Admission::Activated),
            13 => self.access(P1, OTHER_VN, M1, Admission::Activated),
            14 => self.access(P1, VN, M1, Admission::Activated),
            15 => self.apply(Update::TunnelRemove { tunnel }),
            16 => self.apply(Update::TunnelPending { tunnel, remote: NVE_C.into() }),
            17 | 18 => self.tunnel(tunnel, if n < 4 { NVE_C.into() } else { NVE_B6.into() }),
            19 => self.apply(Update::ReplicaAdd { vn: VN, tunnel }),
            22 => self.apply(Update::TunnelTwin { tunnel, twin: Some(TunnelIdx((tunnel.0 + 1) % 4)) }),
            23 => self.apply(Update::TunnelTwin { tunnel, twin: None }),
            20 => self.apply(Update::ReplicaRemove { vn: VN, tunnel }),
            24 | 25 => self.stage(if n < 4 { P1 } else { P2 }, n),
            26 | 27 => self.enforce(if n < 4 { P1 } else { P2 }, n),
            30 | 31 => self.way(tunnel, n),
            32 => self.apply(Update::TunnelSpread { tunnel, shares: Some([n / 4; SHARES]) }),
            33 => self.apply(Update::TunnelSpread { tunnel, shares: None }),
            34..42 => self.sources(kind, m, n),
            42..=44 => multicast::change(self, kind - 42, tunnel, n),
            46..50 => self.join(n & 1 == 0),
            50..56 => self.routing(kind, m, n),
            28 => self.apply(Update::PolicyClear { port: if n < 4 { P1 } else { P2 } }),
            _ => self.set_uplink((n & 1 == 0).then_some(EXCEPTION)),
        }
    }

    /// Changes of what [`Lab::join`] has set, which may be nothing yet.
    pub fn routing(&mut self, kind: u8, mac: Mac, n: u8) {
        let ip = far(n & 1 == 0, n);
        let until = self.now + ms(10);
        match kind {
            50 => {
                let answered = VnRouting {
                    dhcp_v4: true,
                    dhcp_v6: n < 4,
                    advertise: true,
                    ..VnRouting::new(DOMAIN, GW, n & 1 == 0)
                };
                self.part_of(VN, answered);
            }
            51 if n < 2 => self.apply(Update::VnRoutingSet { vn: VN, routing: None }),
            51 => {
                let mut v4 = [NO_LENGTH; MAX_LENGTHS];
                (v4[0], v4[1]) = (24, 0);
                self.apply(Update::DomainSet { domain: DOMAIN, v4, v6: v4 });
                for all in ["0.0.0.0/0", "::/0"] {
                    self.route_to(all.parse().unwrap(), NextHop::Vm(Key::new(OTHER_VN, mac)));
                }
            }
            52 => self.pull(),
            53 => self.own_route(ip, Key::new(OTHER_VN, mac)),
            54 => self.apply(Update::RouteRemove { domain: DOMAIN, prefix: Prefix::host(ip) }),
            _ => self.apply(Update::NeighborAbsent { vn: OTHER_VN, ip, until }),
        }
    }

    pub fn way(&mut self, tunnel: TunnelIdx, n: u8) {
        let hop = mac(0xbb00 + u64::from(n));
        let header = OuterHeader::v4(UP_MAC, hop, LOC4, NVE_C, 4789, 64);
        self.apply(Update::TunnelWay { tunnel, at: n / 4, uplink: UPLINK, mtu: MTU - u16::from(n), header });
    }

    /// What P1's VM may send from.
    pub fn sources(&mut self, kind: u8, mac: Mac, n: u8) {
        let (port, ip) = (P1, if n & 1 == 0 { v4(n).into() } else { v6(n.into()).into() });
        let rule = |n: u8| match n % 4 {
            0 => SourceRule::Any,
            1 => SourceRule::Full,
            _ => SourceRule::Listed { room: n % 4 - 1 },
        };
        let rules = SourceRules { v4: rule(n), v6: rule(n / 2), link_local: rule(n + 1) };
        let kinds = if n < 4 { PrefixKind::Routed } else { PrefixKind::Shared };
        let prefix: Prefix = if n & 1 == 0 { "10.0.0.4/30" } else { "fd00::100/120" }.parse().unwrap();
        let update = match kind {
            34 => Update::SourceSet { port, ip },
            35 => Update::SourceRemove { port, ip },
            36 => Update::SourceRulesSet { port, rules },
            37 => Update::MacSet { port, mac, shared: n & 1 == 0 },
            38 => Update::PrefixSet { port, prefix, kind: kinds },
            39 if n & 1 == 0 => Update::PrefixRemove { port, prefix, kind: kinds },
            39 => Update::MacRemove { port, mac },
            _ => Update::ServerSet { port, server: n & 1 == 0 },
        };
        self.apply(update);
    }

    pub fn stage(&mut self, port: PortIdx, n: u8) {
        let rule = Rule {
            verdict: if n & 1 == 0 { policy::Verdict::Deny } else { policy::Verdict::Allow },
            direction: if n & 2 == 0 { Direction::Out } else { Direction::In },
            remote: Prefix::new(v4(1 + (n & 1)).into(), 32).filter(|_| n & 4 == 0),
            ..Rule::ANY
        };
        self.apply(Update::PolicyRule { port, at: n % 2, rule });
    }

    /// Without a rate: a trace cannot tell whether it is used up.
    pub fn enforce(&mut self, port: PortIdx, n: u8) {
        let default = if n & 1 == 0 { policy::Verdict::Deny } else { policy::Verdict::Allow };
        self.apply(Update::PolicySet {
            port,
            rules: n % 3,
            default,
            rate: Rate::UNLIMITED,
            dscp: Dscp::new(n),
        });
    }

    pub fn run(&mut self, op: Op) {
        match op {
            Op::Frames(all) => {
                for (port, f) in all {
                    self.one(port, &f);
                }
            }
            Op::Vm(m, vn, state) => self.apply(Update::VmSet { key: Key::new(vn, m), state }),
            Op::Other(kind, m, n) => self.other(kind, m, n),
            Op::Wait(t) => self.wait(ms(t)),
            Op::Tick => self.tick(),
            Op::Buffers(n) => {
                let taken = self.pool.taken();
                self.pool = MemPool::of(n);
                self.forget_buffers(taken);
            }
        }
    }
}
