//! A guest and its peer over OVS-DPDK, on one bridge or on three with VXLAN between them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use godwit_wire::Mac;

use super::Common;
use super::ovs_guests::{Locator, Ovs, OvsSpec};
use crate::agent::client::Agent;
use crate::agent::proto::Announcement;
use crate::cmd;
use crate::guest::migrate::Migration;
use crate::guest::qemu::{GuestSpec, Nic};
use crate::guest::{Guest, standard_image};
use crate::lab::Lab;
use crate::lab::process::Process;
use crate::lab::topology::{self, GUEST, GUEST_MTU, UPLINK};
use crate::lab::vm::{VmSpec, start_agent};
use crate::traffic::End;

/// OVS's end of the wire to the VM that stays.
const PEER: &str = "p0";

/// What carries the guest's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// An OVS for each of the guest's ports, each with a tunnel to the peer's; otherwise all are on one bridge.
    pub tunnels: bool,
    /// While the guest migrates, flows hand what is for it to both of its ports; otherwise the bridges learn where it
    /// is.
    pub cloning: bool,
}

impl Setup {
    /// All of them.
    pub const ALL: [Setup; 4] = [
        Setup { tunnels: false, cloning: false },
        Setup { tunnels: false, cloning: true },
        Setup { tunnels: true, cloning: false },
        Setup { tunnels: true, cloning: true },
    ];

    /// What a table calls it.
    pub fn name(self) -> &'static str {
        match (self.tunnels, self.cloning) {
            (false, false) => "OVS-DPDK, learning bridge",
            (false, true) => "OVS-DPDK, cloning to both ports",
            (true, false) => "OVS-DPDK, VXLAN, learning",
            (true, true) => "OVS-DPDK, VXLAN, cloning to both",
        }
    }
}

/// A guest and its peer. Ended in this order.
pub struct Pair {
    /// The VM that migrates.
    pub guest: Guest,
    /// The agent of the one that stays.
    pub peer: Agent,
    _agent: Process,
    setup: Setup,
    /// The peer's comes last.
    ovs: Vec<Ovs>,
    /// The guest's two ports.
    sockets: Vec<PathBuf>,
    v: VmSpec,
    p: VmSpec,
}

impl Pair {
    /// Starts both.
    ///
    /// # Errors
    /// Where a step fails.
    pub fn start(lab: &Lab, common: &Common, setup: Setup) -> Result<Pair> {
        let (v, p) = (VmSpec::numbered("v", 10), VmSpec::numbered("p", 20));
        let ovs = if setup.tunnels { tunnels(lab, common, &p)? } else { one_bridge(lab, common, &p)? };
        let sockets: Vec<PathBuf> = ovs.iter().flat_map(|o| o.sockets.clone()).collect();
        if setup.tunnels && setup.cloning {
            // What the guest broadcasts comes to its other host by the peer's: that must not send clones back there.
            ovs.iter().filter(|o| !o.sockets.is_empty()).try_for_each(|o| o.to_all_guests(v.mac))?;
        }
        let (agent, peer) = start_agent("p", &lab.namespace("p"), &lab.bins, &lab.dir)?;
        let (kernel, image) = standard_image(&lab.bins.lab, &lab.dir)?;
        let mut machine = GuestSpec::new("v", Path::new(&kernel), &image);
        machine.nics.push(Nic::new(&sockets[0], v.mac));
        // In a namespace of the lab, so that it ends with it whatever happens.
        let mut guest = Guest::start(machine, &lab.dir, Some(&lab.namespace("p")))?;
        guest.configure(GUEST, GUEST_MTU, &v.ips)?;
        let mac = v.mac.to_string();
        guest.agent.announce(Announcement {
            interface: GUEST.into(),
            mac,
            ips: v.ips.clone(),
            rarp: false,
        })?;
        Ok(Pair { guest, peer, _agent: agent, setup, ovs, sockets, v, p })
    }

    /// Where their talk ends, the guest's end first.
    pub fn ends(&mut self) -> (End<'_>, End<'_>) {
        let (at_v, at_p) = (self.v.address(false, 0), self.p.address(false, 0));
        (End { agent: &mut self.guest.agent, address: at_v }, End { agent: &mut self.peer, address: at_p })
    }

    /// Migration number `n`, from 1: to and fro between the two ports.
    ///
    /// # Errors
    /// Where a step fails.
    pub fn migrate(&mut self, n: u32) -> Result<Migration> {
        let to = Nic::new(&self.sockets[n as usize % 2], self.v.mac);
        let at_peer = self.ovs.last().filter(|_| self.setup.cloning);
        match at_peer {
            Some(ovs) if self.setup.tunnels => ovs.to_all_tunnels(self.v.mac)?,
            Some(ovs) => ovs.to_all_guests(self.v.mac)?,
            None => {}
        }
        let migration = self.guest.migrate(vec![to])?;
        at_peer.map_or(Ok(()), |ovs| ovs.as_learned(self.v.mac))?;
        Ok(migration)
    }
}

/// The peer's namespace with a wire into the OVS's.
fn peer(lab: &Lab, p: &VmSpec, at: &str) -> Result<()> {
    let own = lab.namespace("p");
    topology::add_namespace(&own)?;
    let wire = format!("mtu {GUEST_MTU} type veth peer name {GUEST} mtu {GUEST_MTU} netns {own}");
    cmd::ip_batch(at, &[format!("link add {PEER} {wire}"), format!("link set {PEER} up")])?;
    cmd::ip_batch(&own, &[format!("link set {GUEST} address {}", p.mac)])?;
    topology::guest_addresses(&own, GUEST, &p.ips)?;
    topology::offloads_off(&own, GUEST)?;
    topology::offloads_off(at, PEER)
}

fn one_bridge(lab: &Lab, common: &Common, p: &VmSpec) -> Result<Vec<Ovs>> {
    let namespace = lab.namespace("ovs");
    topology::add_namespace(&namespace)?;
    peer(lab, p, &namespace)?;
    let ovs = Ovs::start(&OvsSpec {
        name: "b",
        namespace: &namespace,
        dir: &lab.dir,
        cores: (&common.workers, common.idle_sleep_us),
        guests: 2,
        wires: &[PEER],
    })?;
    ovs.add_wire(PEER)?;
    Ok(vec![ovs])
}

/// Three that stand as our three switches do. Tunnels only from and to the peer's: no frame can go in a circle.
fn tunnels(lab: &Lab, common: &Common, p: &VmSpec) -> Result<Vec<Ovs>> {
    let hosts = ["x", "y", "z"];
    let locator = |n: usize| {
        let last = 101 + n as u8;
        Locator { ip: IpAddr::V4(Ipv4Addr::new(198, 18, 0, last)), mac: Mac([2, 0x67, 0x77, 1, 0, last]) }
    };
    let of_peer = hosts.len() - 1;
    let mut all = Vec::new();
    for (n, name) in hosts.iter().enumerate() {
        let namespace = lab.namespace(name);
        topology::add_namespace(&namespace)?;
        topology::connect_underlay(&lab.namespace("net"), &namespace, name)?;
        if n == of_peer {
            peer(lab, p, &namespace)?;
        }
        let mut ovs = Ovs::start(&OvsSpec {
            name,
            namespace: &namespace,
            dir: &lab.dir,
            cores: (&common.workers, common.idle_sleep_us),
            guests: u32::from(n != of_peer),
            wires: if n == of_peer { &[UPLINK, PEER] } else { &[UPLINK] },
        })?;
        ovs.add_locator(UPLINK, locator(n))?;
        if n == of_peer {
            ovs.add_wire(PEER)?;
            (0..of_peer).try_for_each(|host| ovs.add_tunnel(locator(host)))?;
        } else {
            ovs.add_tunnel(locator(of_peer))?;
        }
        all.push(ovs);
    }
    Ok(all)
}
