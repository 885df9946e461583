//! What goes into [`Nve`](crate::Nve) and what comes out: its whole contact with the world.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use godwit_model::Level;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{Domain, Location, OperState, StaticRoute, VnRouting};
use godwit_tables::event::Event;
use godwit_tables::update::{Key, PortIdx, Update};
use godwit_wire::{Mac, VlanId, Vni};

use crate::config::WorkerSet;

/// An uplink's address with what is needed to reach others from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UplinkV4 {
    /// The address.
    pub addr: Ipv4Addr,
    /// Length of the on-link prefix in bits, at most 32.
    pub prefix_len: u8,
    /// Where everything else goes.
    pub gateway: Option<Ipv4Addr>,
}

/// An uplink's address with what is needed to reach others from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UplinkV6 {
    /// The address.
    pub addr: Ipv6Addr,
    /// Length of the on-link prefix in bits, at most 128.
    pub prefix_len: u8,
    /// Where everything else goes; may be link-local.
    pub gateway: Option<Ipv6Addr>,
}

/// An underlay port as its owner configured it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UplinkSpec {
    /// The port's own address.
    pub mac: Mac,
    /// IPv4 side; its address is the locator, unless the NVE has locators of its own (R95).
    pub v4: Option<UplinkV4>,
    /// IPv6 side.
    pub v6: Option<UplinkV6>,
    /// Link-local address that the switch answers for too.
    pub v6_link_local: Option<Ipv6Addr>,
    /// Largest outer IP packet, in bytes.
    pub mtu: u16,
    /// Port that gets the underlay's traffic which is not for the switch.
    pub exception: Option<PortIdx>,
    /// The VLAN that the port's frames are in (R95). `mtu` does not count the tag.
    pub vlan: Option<VlanId>,
}

/// Who says how a locator is reached (R95).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteOrigin {
    /// The configuration.
    Fixed,
    /// The kernel, whose routing daemon speaks with the underlay.
    Kernel,
}

/// A route on the underlay (R95). With the uplinks' own prefixes and gateways the longest prefix counts; among
/// equals an uplink's prefix, then the configuration's route, the kernel's, a gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Any address of the prefix.
    pub to: IpAddr,
    /// Length of the prefix in bits.
    pub len: u8,
    /// Where it leads, each with the same right. None: nowhere, so what matches it is not sent by a shorter one.
    pub hops: Vec<RouteHop>,
}

/// A next hop of a [`Route`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteHop {
    /// The uplink that it is on.
    pub uplink: PortIdx,
    /// Its address, of either family (RFC 8950); `None`: the destination itself is on the link.
    pub ip: Option<IpAddr>,
}

/// What a new port is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortSpec {
    /// A VM's interface (TSI).
    Access {
        /// Its VN.
        vni: Vni,
        /// The VM's address.
        mac: Mac,
        /// Only `Input::ActivatePort` activates it; announcements and first frames do not (R18).
        explicit_activation: bool,
    },
    /// An underlay port.
    Uplink(UplinkSpec),
    /// The host's side of an uplink.
    Exception {
        /// That uplink.
        uplink: PortIdx,
    },
}

/// Something that happened; handed to [`Nve::handle`](crate::Nve::handle).
// It goes from hand to hand and is never stored: a box would cost an allocation a message and save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// A worker's word.
    Worker {
        /// The worker.
        worker: usize,
        /// Its word.
        event: Event,
    },
    /// A VM's frame that a worker punted, as it came in: untagged, or behind a tag that a transparent VN keeps.
    Punted {
        /// The port.
        port: PortIdx,
        /// The frame.
        frame: Vec<u8>,
    },
    /// The NVA's word, in the order of its stream.
    Nva(NvaToNve),
    /// A stream to the NVA opened; nothing has been said on it.
    NvaConnected,
    /// The stream ended; what was sent last may be lost.
    NvaLost,
    /// A port is there, its queues are polled. The same number again replaces the port.
    PortAdded {
        /// Its number, below `MAX_PORTS`.
        port: PortIdx,
        /// Its name.
        name: String,
        /// What it is for.
        spec: PortSpec,
        /// Who polls it.
        workers: WorkerSet,
    },
    /// A port is gone, or is about to be closed.
    PortRemoved {
        /// Its number.
        port: PortIdx,
    },
    /// A port's link changed; ports begin with their link up.
    PortLink {
        /// The port.
        port: PortIdx,
        /// There is a link: a vhost-user client, a cable.
        up: bool,
    },
    /// The hypervisor paused the port's VM for its handover (R45).
    PausePort {
        /// The port.
        port: PortIdx,
    },
    /// The VM runs on this port; also after a pause that led to no move (R18).
    ActivatePort {
        /// The port.
        port: PortIdx,
    },
    /// The VM manager says how the port's VM is (R16).
    VmState {
        /// The port.
        port: PortIdx,
        /// Its state.
        state: OperState,
    },
    /// Other workers poll the port now.
    PortWorkers {
        /// The port.
        port: PortIdx,
        /// Who polls it.
        workers: WorkerSet,
    },
    /// A worker with empty tables starts to take updates: it is told everything.
    WorkerJoined {
        /// Its number.
        worker: usize,
    },
    /// A worker takes no updates any more.
    WorkerLeft {
        /// Its number.
        worker: usize,
    },
    /// A VM's location from a configuration file, for use without an NVA; the NVA's word replaces it.
    StaticVm {
        /// The VN.
        vni: Vni,
        /// The VM.
        mac: Mac,
        /// Where it is.
        location: Location,
        /// Its addresses.
        ips: Vec<IpAddr>,
        /// It is a router.
        router: bool,
    },
    /// A routing domain from a configuration file, for use without an NVA; before ports of its VNs (R58). The same
    /// domain again replaces it.
    StaticDomain {
        /// The domain.
        domain: Domain,
        /// The part of each of its VNs.
        vns: Vec<(Vni, VnRouting)>,
        /// All its static routes.
        routes: Vec<StaticRoute>,
    },
    /// Another VM behind an access port, from a configuration file, for use without an NVA; the NVA's
    /// word that it is elsewhere replaces it. It goes with the port.
    VmBehindPort {
        /// The port, which is there.
        port: PortIdx,
        /// The VM; its VN is the port's.
        mac: Mac,
        /// Its addresses.
        ips: Vec<IpAddr>,
    },
    /// An address from a configuration file.
    StaticNeighbor {
        /// The VN.
        vni: Vni,
        /// The address.
        ip: IpAddr,
        /// Its owner.
        mac: Mac,
        /// The owner is a router.
        router: bool,
    },
    /// All routes of one origin; replaces those that it gave before (R95).
    Routes {
        /// Whose.
        origin: RouteOrigin,
        /// The routes.
        routes: Vec<Route>,
    },
    /// An underlay neighbor from a configuration file; it is not asked for and not probed.
    UnderlayNeighbor {
        /// The uplink it is on.
        uplink: PortIdx,
        /// Its address.
        ip: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// A worker has applied everything up to that barrier of [`Outputs::barriers`].
    Applied {
        /// The worker.
        worker: usize,
        /// The barrier's token.
        token: u64,
    },
    /// Only time passed.
    Tick,
}

/// A line for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// How much it matters.
    pub level: Level,
    /// What happened, with names.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An order to a worker: it says by [`Event::Flushed`] when all that it has of a VM's frames, received or not, has left
/// (R77).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// The worker.
    pub worker: usize,
    /// Returned with the event.
    pub token: u64,
    /// The VM.
    pub key: Key,
    /// Its port, where what it has sent itself is meant as well.
    pub port: Option<PortIdx>,
}

/// What [`Nve::handle`](crate::Nve::handle) wants done. It appends, so that one value can gather
/// several calls; the caller empties it.
///
/// The caller carries it out in the order of the fields: a worker gets its updates in order, then
/// its barriers; only then go frames and messages out, because a claim must not overtake the local
/// delivery that it promises (R18, R46c).
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Outputs {
    /// For each worker its updates, in order.
    pub updates: Vec<(usize, Update)>,
    /// Worker and token: when the worker has applied all updates before this, `Input::Applied`.
    pub barriers: Vec<(usize, u64)>,
    /// After those: when the worker has sent what it has of the VM's frames, `Event::Flushed`.
    pub flushes: Vec<Flush>,
    /// Frames for uplinks and VMs' ports, untagged and without padding, at most 1,514 bytes: ARP, ND, datagrams to
    /// other NVEs, and what the gateway says to VMs.
    pub frames: Vec<(PortIdx, Vec<u8>)>,
    /// Messages to the NVA; empty unless connected.
    pub to_nva: Vec<NveToNva>,
    /// Lines for the log.
    pub notes: Vec<Note>,
}

impl Outputs {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
            && self.barriers.is_empty()
            && self.flushes.is_empty()
            && self.frames.is_empty()
            && self.to_nva.is_empty()
            && self.notes.is_empty()
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.updates.clear();
        self.barriers.clear();
        self.flushes.clear();
        self.frames.clear();
        self.to_nva.clear();
        self.notes.clear();
    }

    pub(crate) fn note(&mut self, level: Level, text: String) {
        self.notes.push(Note { level, text });
    }
}
