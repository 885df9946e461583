//! Tunnels to other NVEs, and the several ways that one may have (R95).

use core::net::IpAddr;

use godwit_wire::FlowHash;
use godwit_wire::outer::OuterHeader;

use crate::update::{MAX_WAYS, PortIdx, SHARES, Shares, TunnelIdx};
use crate::{OutOfRange, TablesConfig};

/// A tunnel to one remote locator. All that a frame over IPv4 needs lies in its first cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Tunnel {
    /// What makes frames go elsewhere: [`NOTHING`], the number of the twin that IPv4 packets take, or with
    /// [`SPREAD`] the place of its ways, which know the twin, too.
    aside: u32,
    /// The uplink it leaves through.
    pub uplink: PortIdx,
    /// Largest inner frame that fits, Ethernet header included, in bytes (R8).
    pub inner_max: u16,
    /// Outer header; `None` while the next hop does not answer.
    pub header: Option<OuterHeader>,
    /// Largest outer IP packet, in bytes.
    pub mtu: u16,
    /// The remote locator; `None` where there is no such tunnel.
    pub remote: Option<IpAddr>,
    /// The place of its ways, in use or being told; [`NOTHING`]: it has one way only.
    ways: u32,
}

const NOTHING: u32 = SPREAD - 1;
/// In [`Tunnel::aside`]: flows go by several ways. No tunnel's number has this bit.
const SPREAD: u32 = 1 << 31;
const NO_PORT: PortIdx = PortIdx(u16::MAX);
const VACANT: Tunnel = Tunnel {
    header: None,
    uplink: NO_PORT,
    inner_max: 0,
    mtu: 0,
    aside: NOTHING,
    remote: None,
    ways: NOTHING,
};

impl Tunnel {
    fn new(uplink: PortIdx, remote: IpAddr, mtu: u16, header: OuterHeader) -> Tunnel {
        // The outer packet is all of the frame but its Ethernet header.
        let room = usize::from(mtu) + header.l3();
        let inner_max = room.saturating_sub(header.len()).min(godwit_wire::outer::MAX_INNER) as u16;
        Tunnel { header: Some(header), uplink, inner_max, mtu, remote: Some(remote), ..VACANT }
    }
}

/// The ways of a tunnel that has several.
#[derive(Clone)]
struct Ways {
    /// The way of each share of the flows.
    shares: Shares,
    /// The tunnel's twin.
    twin: u32,
    ways: [Tunnel; MAX_WAYS],
}

impl Ways {
    /// Those that some share takes.
    fn used(&self) -> impl Iterator<Item = &Tunnel> {
        self.ways.iter().zip(0u8..).filter(|(_, at)| self.shares.contains(at)).map(|(way, _)| way)
    }
}

const NO_WAYS: Ways = Ways { shares: [0; SHARES], twin: NOTHING, ways: [const { VACANT }; MAX_WAYS] };

/// All tunnels.
pub struct Tunnels {
    tunnels: Vec<Tunnel>,
    ways: Vec<Ways>,
    /// Places of `ways` that are free again.
    free: Vec<u32>,
    capacity: usize,
    /// Some outer header has had an 802.1Q tag, or some tunnel a twin or several ways.
    varied: bool,
}

impl Tunnels {
    pub(crate) fn new(config: &TablesConfig) -> Tunnels {
        // Reserved once: growing up to the capacity never allocates, and what is not used takes no memory.
        let capacity = config.tunnel_capacity;
        Tunnels {
            tunnels: Vec::with_capacity(capacity),
            ways: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            capacity,
            varied: false,
        }
    }

    /// Outer headers may have 802.1Q tags (R95), tunnels a twin (R4) or several ways (R95). Otherwise a burst need not
    /// look for any of them.
    #[inline(always)]
    pub fn are_varied(&self) -> bool {
        self.varied
    }

    /// A tunnel that was set, resolved or not.
    #[inline]
    pub fn get(&self, tunnel: TunnelIdx) -> Option<&Tunnel> {
        self.tunnels.get(tunnel.0 as usize).filter(|t| t.remote.is_some())
    }

    /// All uplinks that frames leave by that take this tunnel, its twin's and those of its ways included.
    pub fn uplinks(&self, tunnel: TunnelIdx) -> impl Iterator<Item = PortIdx> + '_ {
        let own = self.tunnels.get(tunnel.0 as usize);
        let twin = own.and_then(|t| self.tunnels.get(self.ways_of(t).map_or(t.aside, |w| w.twin) as usize));
        [own, twin].into_iter().flatten().flat_map(|t| {
            let ways = self.ways_of(t);
            let used = ways.into_iter().flat_map(Ways::used).map(|way| way.uplink);
            ways.is_none().then_some(t.uplink).into_iter().chain(used)
        })
    }

    /// The ways that a tunnel's flows go by, where there are several.
    fn ways_of(&self, t: &Tunnel) -> Option<&Ways> {
        let spread = t.aside != NOTHING && t.aside & SPREAD != 0;
        if spread { self.ways.get((t.aside ^ SPREAD) as usize) } else { None }
    }

    /// The tunnel to a locator, if there is one that is ready. Looks at every tunnel: not for the packet path.
    pub fn towards(&self, remote: IpAddr) -> Option<TunnelIdx> {
        let found = self.tunnels.iter().position(|t| t.remote == Some(remote) && t.header.is_some());
        found.map(|at| TunnelIdx(at as u32))
    }

    /// The tunnel that a frame goes through, and its way there: the twin for IPv4 packets, where there is one and
    /// it is ready (R4); of several ways the one of the frame's flow (R95).
    #[inline(always)]
    pub fn for_frame(&self, tunnel: TunnelIdx, is_v4: bool, hash: FlowHash) -> Option<(TunnelIdx, &Tunnel)> {
        let (mut number, mut t) = (tunnel, self.tunnels.get(tunnel.0 as usize)?);
        if t.aside != NOTHING {
            let twin = match t.aside & SPREAD {
                0 => t.aside,
                _ => self.ways.get((t.aside ^ SPREAD) as usize)?.twin,
            };
            if is_v4
                && let Some(twin_tunnel) = self.tunnels.get(twin as usize)
                && twin_tunnel.header.is_some()
            {
                (number, t) = (TunnelIdx(twin), twin_tunnel);
            }
            if t.aside & SPREAD != 0 {
                let ways = self.ways.get((t.aside ^ SPREAD) as usize)?;
                t = &ways.ways[usize::from(ways.shares[share(hash)]) % MAX_WAYS];
            }
        }
        Some((number, t))
    }

    /// [`Tunnels::ready`] of the way that [`Tunnels::for_frame`] names, for a burst: the tunnel's line is
    /// looked at once, and nothing is called, so that registers keep what the loop needs. `VARIED`: what
    /// [`Tunnels::are_varied`] says; where it is false, each tunnel is its own only way.
    #[inline(always)]
    pub fn ready_for_frame<const VARIED: bool>(
        &self,
        tunnel: TunnelIdx,
        is_v4: bool,
        hash: FlowHash,
    ) -> Option<(&Tunnel, &OuterHeader)> {
        if !VARIED {
            return self.ready(tunnel);
        }
        let (_, t) = self.for_frame(tunnel, is_v4, hash)?;
        t.header.as_ref().map(|h| (t, h))
    }

    /// A tunnel and its header, where it is ready to be used.
    #[inline(always)]
    pub fn ready(&self, tunnel: TunnelIdx) -> Option<(&Tunnel, &OuterHeader)> {
        let t = self.tunnels.get(tunnel.0 as usize)?;
        t.header.as_ref().map(|h| (t, h))
    }

    fn slot(&mut self, tunnel: TunnelIdx) -> Result<&mut Tunnel, OutOfRange> {
        let at = tunnel.0 as usize;
        if at >= self.capacity {
            return Err(OutOfRange);
        }
        while self.tunnels.len() <= at {
            self.tunnels.push(VACANT);
        }
        Ok(&mut self.tunnels[at])
    }

    pub(crate) fn set(
        &mut self,
        tunnel: TunnelIdx,
        uplink: PortIdx,
        remote: IpAddr,
        mtu: u16,
        header: OuterHeader,
    ) -> Result<(), OutOfRange> {
        self.varied |= header.is_tagged();
        let slot = self.slot(tunnel)?;
        *slot = Tunnel { aside: slot.aside, ways: slot.ways, ..Tunnel::new(uplink, remote, mtu, header) };
        Ok(())
    }

    pub(crate) fn set_twin(&mut self, tunnel: TunnelIdx, twin: Option<TunnelIdx>) -> Result<(), OutOfRange> {
        if self.get(tunnel).is_none() {
            // Nothing is sent by a tunnel that is not there, nor by its twin.
            return if (tunnel.0 as usize) < self.capacity { Ok(()) } else { Err(OutOfRange) };
        }
        let twin = twin.map_or(NOTHING, |t| t.0.min(NOTHING));
        self.varied |= twin != NOTHING;
        let slot = self.slot(tunnel)?;
        match slot.aside & SPREAD {
            0 => slot.aside = twin,
            _ => {
                let at = (slot.aside ^ SPREAD) as usize;
                self.ways[at].twin = twin;
            }
        }
        Ok(())
    }

    /// Sets one of several ways; it is used once [`Tunnels::spread`] names it.
    pub(crate) fn set_way(
        &mut self,
        tunnel: TunnelIdx,
        at: u8,
        uplink: PortIdx,
        mtu: u16,
        header: OuterHeader,
    ) -> Result<(), OutOfRange> {
        let remote = self.get(tunnel).and_then(|t| t.remote).ok_or(OutOfRange)?;
        let place = match self.slot(tunnel)?.ways {
            NOTHING => self.take_place(tunnel)?,
            place => place,
        };
        let way = self.ways[place as usize].ways.get_mut(usize::from(at)).ok_or(OutOfRange)?;
        *way = Tunnel::new(uplink, remote, mtu, header);
        self.varied |= header.is_tagged();
        Ok(())
    }

    fn take_place(&mut self, tunnel: TunnelIdx) -> Result<u32, OutOfRange> {
        let place = match self.free.pop() {
            Some(place) => {
                self.ways[place as usize] = NO_WAYS;
                place
            }
            None if self.ways.len() < self.capacity => {
                self.ways.push(NO_WAYS);
                (self.ways.len() - 1) as u32
            }
            None => return Err(OutOfRange),
        };
        self.slot(tunnel)?.ways = place;
        Ok(place)
    }

    /// Lets flows go by several ways, or by the tunnel's own header again.
    pub(crate) fn spread(&mut self, tunnel: TunnelIdx, shares: Option<Shares>) -> Result<(), OutOfRange> {
        let Some(shares) = shares else {
            self.gather(tunnel);
            return Ok(());
        };
        let t = self.get(tunnel).filter(|t| t.header.is_some()).ok_or(OutOfRange)?;
        let (place, aside) = (t.ways, t.aside);
        let ways = self.ways.get_mut(place as usize).ok_or(OutOfRange)?;
        // A share without a way would lose its flows: then all goes on as before.
        let there = |way: &u8| ways.ways.get(usize::from(*way)).is_some_and(|w| w.header.is_some());
        if !shares.iter().all(there) {
            return Err(OutOfRange);
        }
        ways.shares = shares;
        self.varied = true;
        if aside & SPREAD == 0 {
            ways.twin = aside;
            self.slot(tunnel)?.aside = SPREAD | place;
        }
        Ok(())
    }

    /// Back to one way; the twin stays.
    fn gather(&mut self, tunnel: TunnelIdx) {
        let Some(t) = self.tunnels.get_mut(tunnel.0 as usize) else { return };
        let place = core::mem::replace(&mut t.ways, NOTHING);
        if let Some(ways) = self.ways.get(place as usize) {
            if t.aside & SPREAD != 0 {
                t.aside = ways.twin;
            }
            self.free.push(place);
        }
    }

    pub(crate) fn set_pending(&mut self, tunnel: TunnelIdx, remote: IpAddr) -> Result<(), OutOfRange> {
        self.gather(tunnel);
        let t = self.slot(tunnel)?;
        *t = Tunnel { header: None, remote: Some(remote), ..t.clone() };
        Ok(())
    }

    pub(crate) fn remove(&mut self, tunnel: TunnelIdx) {
        self.gather(tunnel);
        if let Some(t) = self.tunnels.get_mut(tunnel.0 as usize) {
            *t = VACANT;
        }
    }
}

/// The share that a flow is in: bits of its hash that neither the source port nor the flow label has, so that what
/// the underlay makes of these does not follow from the way.
#[inline(always)]
fn share(hash: FlowHash) -> usize {
    hash.0 as usize % SHARES
}

#[cfg(test)]
mod tests {
    use godwit_wire::Mac;

    use super::*;

    const T: TunnelIdx = TunnelIdx(3);
    const TWIN: TunnelIdx = TunnelIdx(4);

    fn header(hop: u8) -> OuterHeader {
        let ip = |n| core::net::Ipv4Addr::new(198, 18, 0, n);
        OuterHeader::v4(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 1, hop]), ip(1), ip(2), 4789, 64)
    }

    fn remote() -> IpAddr {
        IpAddr::from([198, 18, 0, 2])
    }

    fn tunnels() -> Tunnels {
        let mut t = Tunnels::new(&TablesConfig { tunnel_capacity: 8, ..TablesConfig::default() });
        t.set(T, PortIdx(0), remote(), 1550, header(0)).unwrap();
        t
    }

    fn shares(of: impl Fn(usize) -> u8) -> Shares {
        core::array::from_fn(of)
    }

    fn uplink(t: &Tunnels, v4: bool, share: u64) -> u16 {
        t.ready_for_frame::<true>(T, v4, FlowHash(share)).unwrap().0.uplink.0
    }

    #[test]
    fn r4_r95_tunnels_are_varied_once_one_has_a_twin_ways_or_a_tag() {
        let plain = |t: &Tunnels| {
            let by = |found: Option<(&Tunnel, &OuterHeader)>| found.map(|(t, _)| t.uplink);
            assert_eq!(by(t.ready_for_frame::<false>(T, true, FlowHash(1))), Some(PortIdx(0)));
            assert_eq!(by(t.ready_for_frame::<true>(T, true, FlowHash(1))), Some(PortIdx(0)));
            !t.are_varied()
        };
        let mut twins = tunnels();
        twins.set(TWIN, PortIdx(1), remote(), 1550, header(1)).unwrap();
        twins.set_twin(T, None).unwrap();
        assert!(plain(&twins));
        twins.set_twin(T, Some(TWIN)).unwrap();
        assert!(twins.are_varied());
        let mut ways = tunnels();
        ways.set_way(T, 0, PortIdx(10), 1550, header(1)).unwrap();
        assert!(plain(&ways), "nothing is spread yet");
        ways.spread(T, Some([0; SHARES])).unwrap();
        assert!(ways.are_varied());
        let mut tags = tunnels();
        let tagged = header(1).in_vlan(godwit_wire::VlanId::new(100).unwrap());
        tags.set(TWIN, PortIdx(1), remote(), 1550, tagged).unwrap();
        assert!(tags.are_varied());
    }

    #[test]
    fn r95_flows_keep_to_the_way_of_their_share() {
        let mut t = tunnels();
        for at in 0..2u8 {
            t.set_way(T, at, PortIdx(10 + u16::from(at)), 1550, header(at)).unwrap();
        }
        assert_eq!(uplink(&t, true, 1), 0, "not before it is told to spread");
        t.spread(T, Some(shares(|s| (s % 2) as u8))).unwrap();
        for hash in 0..200u64 {
            let expected = 10 + (hash % 2) as u16;
            assert_eq!((uplink(&t, true, hash), uplink(&t, false, hash)), (expected, expected));
        }
        t.set_way(T, 2, PortIdx(12), 1550, header(2)).unwrap();
        t.spread(T, Some(shares(|s| if s == 0 { 2 } else { (s % 2) as u8 }))).unwrap();
        assert_eq!((uplink(&t, true, 0), uplink(&t, true, 1), uplink(&t, true, 2)), (12, 11, 10));
        t.spread(T, None).unwrap();
        assert_eq!(uplink(&t, true, 1), 0);
    }

    #[test]
    fn r45_r95_the_uplinks_of_a_tunnel_are_those_that_its_frames_leave_by() {
        let uplinks = |t: &Tunnels| t.uplinks(T).map(|p| p.0).collect::<Vec<_>>();
        let mut t = tunnels();
        assert_eq!(uplinks(&t), [0]);
        for at in 0..3u8 {
            t.set_way(T, at, PortIdx(10 + u16::from(at)), 1550, header(at)).unwrap();
        }
        assert_eq!(uplinks(&t), [0], "nothing is spread yet");
        t.spread(T, Some(shares(|s| if s % 2 == 0 { 2 } else { 0 }))).unwrap();
        assert_eq!(uplinks(&t), [10, 12], "no share takes the second one");
        t.set(TWIN, PortIdx(1), remote(), 1550, header(1)).unwrap();
        t.set_twin(T, Some(TWIN)).unwrap();
        assert_eq!(uplinks(&t), [10, 12, 1]);
        t.spread(T, None).unwrap();
        assert_eq!(uplinks(&t), [0, 1]);
        assert_eq!(t.uplinks(TunnelIdx(7)).count(), 0);
    }

    #[test]
    fn r95_a_share_without_a_way_is_refused_and_all_goes_on() {
        let mut t = tunnels();
        assert_eq!(t.spread(T, Some([0; SHARES])), Err(OutOfRange), "no way at all");
        t.set_way(T, 0, PortIdx(10), 1550, header(0)).unwrap();
        t.spread(T, Some([0; SHARES])).unwrap();
        assert_eq!(t.spread(T, Some([1; SHARES])), Err(OutOfRange));
        assert_eq!(t.spread(T, Some([200; SHARES])), Err(OutOfRange));
        assert_eq!(t.set_way(T, MAX_WAYS as u8, PortIdx(1), 1550, header(0)), Err(OutOfRange));
        assert_eq!(t.set_way(TunnelIdx(5), 0, PortIdx(1), 1550, header(0)), Err(OutOfRange), "no tunnel");
        assert_eq!(uplink(&t, true, 7), 10);
    }

    #[test]
    fn r95_a_twin_may_have_ways_and_so_may_whoever_has_it() {
        let mut t = tunnels();
        t.set(TWIN, PortIdx(1), remote(), 1550, header(1)).unwrap();
        t.set_twin(T, Some(TWIN)).unwrap();
        assert_eq!((uplink(&t, true, 0), uplink(&t, false, 0)), (1, 0));
        t.set_way(TWIN, 0, PortIdx(20), 1550, header(2)).unwrap();
        t.spread(TWIN, Some([0; SHARES])).unwrap();
        assert_eq!((uplink(&t, true, 0), uplink(&t, false, 0)), (20, 0), "ways of the twin");
        t.set_way(T, 0, PortIdx(30), 1550, header(3)).unwrap();
        t.spread(T, Some([0; SHARES])).unwrap();
        assert_eq!((uplink(&t, true, 0), uplink(&t, false, 0)), (20, 30), "ways of both");
        t.set_pending(TWIN, remote()).unwrap();
        assert_eq!((uplink(&t, true, 0), uplink(&t, false, 0)), (30, 30), "the twin is not ready");
        t.spread(T, None).unwrap();
        t.set(TWIN, PortIdx(1), remote(), 1550, header(1)).unwrap();
        assert_eq!((uplink(&t, true, 0), uplink(&t, false, 0)), (1, 0), "it stays the twin");
    }

    #[test]
    fn places_of_ways_are_used_again_and_known_to_nobody_else() {
        let mut t = tunnels();
        for round in 0..100 {
            t.set(T, PortIdx(0), remote(), 1550, header(0)).unwrap();
            t.set_way(T, 0, PortIdx(10), 1550, header(0)).unwrap();
            if round % 2 == 0 {
                t.spread(T, Some([0; SHARES])).unwrap();
            }
            if round % 3 == 0 { t.remove(T) } else { t.set_pending(T, remote()).unwrap() }
        }
        assert!(t.ways.len() == 1 && t.free.len() == 1);
        t.set(T, PortIdx(0), remote(), 1550, header(0)).unwrap();
        t.set_way(T, 1, PortIdx(11), 1550, header(0)).unwrap();
        assert_eq!(t.spread(T, Some([0; SHARES])), Err(OutOfRange), "an earlier life's way is gone");
    }
}
