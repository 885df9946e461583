//! A VM moves between switches while its peer is in another subnet of its routing domain: what both send each other is
//! routed by the switch that it enters the network at, and the gateway is the same wherever the VM is (R58).

mod cut;
pub(super) mod domain;
pub(super) mod foreign;
mod lease;
mod look;
mod router;
mod world;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

pub(super) use self::domain::{Domain, GATEWAY_MAC};
use self::look::{Echoes, Entry, Path};
pub(super) use self::world::{World, vnis};
use super::hot_move::HotMove;
use super::{Common, Guests, Load, ip_version, report};
use crate::guest::qemu::QEMU;

/// Options of `godwit-lab routed`.
#[derive(Clone, Debug, Args)]
pub struct Routed {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) load: Load,
    /// What the VM that moves is made of; a guest of QEMU gets its addresses from the gateway
    #[arg(long, value_enum, default_value = "netns", value_name = "KIND")]
    pub(super) guests: Guests,
    /// How many times the VM moves in each combination [default: 5; with QEMU's guests 10]
    #[arg(long, value_name = "N")]
    pub(super) moves: Option<u32>,
    /// Only this inner IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    pub(super) inner: Option<u8>,
    /// Only this outer IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    pub(super) outer: Option<u8>,
    /// Seconds of traffic around each move
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    pub(super) duration_per_move: f64,
    /// Switches pull records when they need them, instead of having them pushed
    #[arg(long)]
    pub(super) pull: bool,
    /// v gets its IPv6 address by DHCP, too, and does not form it itself (with --guests qemu)
    #[arg(long)]
    pub(super) managed: bool,
}

/// How v is made, and comes to its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub guests: Guests,
    pub managed: bool,
}

impl Routed {
    /// Runs the scenario and prints its report; false where the network lost, duplicated or broke anything, a guest's
    /// gateway changed, or a packet went another way than it should.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let mut tools = vec!["ping", "traceroute"];
        if self.guests == Guests::Qemu {
            tools.extend([QEMU, "busybox", "dhclient"]);
        }
        ensure!(
            !self.managed || self.guests == Guests::Qemu,
            "--managed needs --guests qemu: a namespace has fixed addresses"
        );
        let bins = self.common.prepare(&tools)?;
        let moves = HotMove::of_a_domain(self);
        let load = self.load.spec(self.guests);
        println!("Godwit lab: a routing domain");
        println!(
            "  VM v of one subnet moves {} times around the switches a, b, c and talks to VM p of another subnet:\n  \
             {} probes a second and {} Mbit/s of TCP each way.",
            moves.moves(),
            report::thousands(u64::from(load.rate)),
            load.tcp_rate_bit / 1_000_000,
        );
        println!(
            "  Router VM r in a third one has containers behind it; s and t are in a network that is routed only."
        );
        if self.pull {
            println!("  The switches pull the networks' records when they need them.");
        }
        if self.guests == Guests::Qemu {
            let how = if self.managed { "DHCP for both versions" } else { "DHCP and advertisement" };
            println!("  v is Linux under QEMU and gets its addresses from the gateway, by {how}.");
        }
        println!();
        moves.rounds(&bins)
    }

    /// The network that the moves happen in.
    pub(super) fn plan(&self) -> Plan {
        Plan { guests: self.guests, managed: self.managed }
    }
}

/// What was seen of the gateway and of the ways of packets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Routing {
    /// What v's kernel knows of its gateway, before and after each move.
    pub gateway: Vec<Compared>,
    /// The ways of packets, as traceroute sees them.
    pub paths: Vec<Path>,
    /// Echo requests and replies.
    pub echoes: Vec<Echoes>,
    /// v's lease, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// What a VM's kernel knows of its gateway, around a move.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The move.
    pub n: usize,
    /// IP version of the gateway's address.
    pub family: u8,
    /// The entry before the move, its state left out: it is doubted and asked for again by time alone.
    pub before: Entry,
    /// The entry after the move.
    pub after: Entry,
}

/// What a guest got of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// What the guest was told first, and what it was told when it renewed its lease after each move: address, router,
    /// seconds, MTU.
    pub leases: Vec<String>,
    /// The IPv6 addresses that it was told by DHCP, where it was.
    pub leases6: Vec<String>,
    /// Its IPv6 addresses, at first and after each move.
    pub addresses: Vec<String>,
    /// The lease names the recorded address and the gateway, was renewed after each move, and nothing changed.
    pub kept: bool,
}

impl Routing {
    /// Everything is as it should be.
    pub fn is_right(&self) -> bool {
        let entries = self.gateway.iter().all(|c| c.before == c.after && c.before.is_known());
        let ways = !self.paths.is_empty() && self.paths.iter().all(Path::is_right);
        let echoes = self.echoes.iter().all(|e| e.received == e.sent);
        entries && ways && echoes && self.lease.as_ref().is_none_or(|l| l.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Routing {
        let entry = Entry::read("10.1.1.1", "10.1.1.1 lladdr 02:67:77:00:00:01 REACHABLE\n");
        let compared = Compared { n: 1, family: 4, before: entry.clone(), after: entry };
        let expected = vec!["10.1.1.1".parse().unwrap(), "10.1.2.20".parse().unwrap()];
        let hops = expected.clone();
        let path = Path { from: "v".into(), to: "p".into(), family: 4, when: "before", expected, hops };
        Routing { gateway: vec![compared], paths: vec![path], ..Routing::default() }
    }

    #[test]
    fn a_gateway_that_changes_and_a_way_that_is_another_are_faults() {
        assert!(seen().is_right());
        let mut other = seen();
        other.gateway[0].after = Entry::read("10.1.1.1", "10.1.1.1 lladdr 02:67:77:00:00:02 REACHABLE\n");
        assert!(!other.is_right());
        let mut unknown = seen();
        unknown.gateway[0].before = Entry::read("10.1.1.1", "");
        unknown.gateway[0].after = unknown.gateway[0].before.clone();
        assert!(!unknown.is_right());
        let mut short = seen();
        short.paths[0].hops.pop();
        assert!(!short.is_right());
        assert!(!Routing::default().is_right(), "nothing seen is nothing shown");
        let lost = Echoes { from: "v".into(), to: "10.1.1.1".into(), sent: 5, received: 4 };
        assert!(!Routing { echoes: vec![lost], ..seen() }.is_right());
    }
}
