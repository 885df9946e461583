//! The domain with its VMs, and what is looked at around moves.

use std::net::IpAddr;
use std::path::Path as FilePath;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::domain::{Domain, Net, start};
use super::look::{Entry, echoes, entry, path, sh, wait_reached};
use super::router::{container_ip, start_router};
use super::{Compared, Lease, Routing};
use crate::guest::Guest;
use crate::guest::image::Image;
use crate::guest::kernel::Kernel;
use crate::guest::qemu::GuestSpec;
use crate::lab::Lab;
use crate::lab::topology::GUEST_MTU;
use crate::lab::vm::VmSpec;
use crate::scenario::Guests;

/// The networks: v's, p's, the router's, and one that is routed only.
const OF_V: Net = Net(1);
const OF_P: Net = Net(2);
const OF_R: Net = Net(3);
const ROUTED_ONLY: Net = Net(4);
/// The addresses' last numbers.
const V: u8 = 10;
const P: u8 = 20;
const R: u8 = 30;
const S: u8 = 40;
const T: u8 = 41;
/// Echo requests to the gateway after each move, and their bytes.
const ECHOES: (u32, u32) = (3, 56);
/// How long a guest may take to be told its addresses.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where a guest's DHCP client writes what it is told.
const LEASES: &str = "/tmp/leases";
/// What that client calls.
const SCRIPT: &str = include_str!("lease.sh");
/// Debian's traceroute.
const TRACEROUTE: &str = "/usr/bin/traceroute.db";

/// The numbers of all its networks.
pub(crate) fn vnis() -> Vec<u32> {
    [OF_V, OF_P, OF_R, ROUTED_ONLY].map(|net| net.network().vni).to_vec()
}

/// The domain with its VMs while v moves.
pub(crate) struct World {
    guests: Guests,
    v: VmSpec,
    /// The addresses that v sends to the gateway by.
    gateways: [IpAddr; 2],
    moves: usize,
    before: Vec<Entry>,
    seen: Routing,
}

impl World {
    /// Makes the domain, starts its VMs, and looks at the ways between them.
    ///
    /// # Errors
    /// Where any step fails.
    pub fn build(lab: &mut Lab, guests: Guests) -> Result<World> {
        let nets = [(OF_V, false), (OF_P, false), (OF_R, false), (ROUTED_ONLY, true)];
        let domain = Domain::create(lab, &nets)?;
        start(lab, OF_P, OF_P.vm("p", P), "c")?;
        start(lab, ROUTED_ONLY, ROUTED_ONLY.vm("s", S), "a")?;
        start(lab, ROUTED_ONLY, ROUTED_ONLY.vm("t", T), "c")?;
        start_router(lab, &domain, OF_R, ("r", R), "b", "k")?;
        let v = match guests {
            Guests::Netns => OF_V.vm("v", V),
            Guests::Qemu => OF_V.autoconfigured("v", V),
        };
        let mut gateways = [false, true].map(|v6| OF_V.gateway(v6));
        let mut seen = Routing::default();
        match guests {
            Guests::Netns => start(lab, OF_V, v.clone(), "a")?,
            Guests::Qemu => {
                start_guest(lab, &v)?;
                gateways[1] = advertised(lab)?;
                seen.lease = Some(Lease { kept: true, ..Lease::default() });
            }
        }
        let mut world = World { guests, v, gateways, moves: 0, before: Vec::new(), seen };
        world.look_at_lease(lab, "bound")?;
        world.look_at_paths(lab, "before")?;
        Ok(world)
    }

    /// Before a move.
    ///
    /// # Errors
    /// Where v cannot be asked.
    pub fn before_move(&mut self, lab: &mut Lab) -> Result<()> {
        // Entries that nothing uses may have been forgotten.
        for gateway in self.gateways {
            wait_reached(lab, &self.v.name, scoped(gateway, OF_V))?;
        }
        self.before = self.entries(lab)?;
        Ok(())
    }

    /// After it.
    ///
    /// # Errors
    /// Where v cannot be asked.
    pub fn after_move(&mut self, lab: &mut Lab) -> Result<()> {
        self.moves += 1;
        let after = self.entries(lab)?;
        for (family, (before, after)) in [4, 6].into_iter().zip(self.before.drain(..).zip(after)) {
            self.seen.gateway.push(Compared { n: self.moves, family, before, after });
        }
        for gateway in [false, true].map(|v6| OF_V.gateway(v6)) {
            let answered = echoes(lab, &self.v.name, gateway, ECHOES)?;
            self.seen.echoes.push(answered);
        }
        if self.guests == Guests::Qemu {
            sh(lab, &self.v.name, "kill -USR1 $(cat /tmp/udhcpc.pid)")?;
        }
        self.look_at_lease(lab, "renew")
    }

    /// Looks at the ways once more, and says what was seen.
    ///
    /// # Errors
    /// Where a VM cannot be asked.
    pub fn end(mut self, lab: &mut Lab) -> Result<Routing> {
        self.look_at_paths(lab, "after")?;
        let seen = self.seen;
        let same = seen.gateway.iter().filter(|c| c.before == c.after && c.before.is_known()).count();
        println!("      v's entries of its gateway: {same} of {} the same after a move", seen.gateway.len());
        for c in seen.gateway.iter().filter(|c| c.before != c.after) {
            println!("      complaint: move {}: {:?} has become {:?}", c.n, c.before, c.after);
        }
        let (asked, came) = seen.echoes.iter().fold((0, 0), |(a, c), e| (a + e.sent, c + e.received));
        println!("      the gateway answered {came} of {asked} echo requests");
        seen.paths.iter().for_each(|p| println!("      {}", p.text()));
        if let Some(lease) = &seen.lease {
            let verdict = if lease.kept { "kept" } else { "NOT KEPT" };
            println!("      v's lease, renewed after each move: {}, {verdict}", lease.leases[0]);
        }
        Ok(seen)
    }

    fn entries(&self, lab: &mut Lab) -> Result<Vec<Entry>> {
        self.gateways.iter().map(|ip| entry(lab, &self.v.name, *ip)).collect()
    }

    fn look_at_paths(&mut self, lab: &mut Lab, when: &'static str) -> Result<()> {
        for v6 in [false, true] {
            let of_v = self.v.address(v6, 0).ip();
            let (p, t, r) = (OF_P.ip(v6, P), ROUTED_ONLY.ip(v6, T), OF_R.ip(v6, R));
            let ways = [
                (("v", "p"), vec![OF_V.gateway(v6), p]),
                (("p", "v"), vec![OF_P.gateway(v6), of_v]),
                // One subnet, and no bridge between its VMs.
                (("s", "t"), vec![ROUTED_ONLY.gateway(v6), t]),
                (("v", "t"), vec![OF_V.gateway(v6), t]),
                (("v", "k"), vec![OF_V.gateway(v6), r, container_ip(v6, 2)]),
                (("k", "v"), vec![container_ip(v6, 1), OF_R.gateway(v6), of_v]),
            ];
            for (ends, expected) in ways {
                self.seen.paths.push(path(lab, ends, when, expected)?);
            }
        }
        Ok(())
    }

    /// Waits for the guest's lease of this kind, and compares it with the record and with what was told before.
    fn look_at_lease(&mut self, lab: &mut Lab, kind: &str) -> Result<()> {
        let Some(lease) = &mut self.seen.lease else { return Ok(()) };
        let started = Instant::now();
        let told = loop {
            let told = sh(lab, &self.v.name, &format!("cat {LEASES}"))?;
            if told.lines().count() > lease.leases.len() || started.elapsed() > PATIENCE {
                break told;
            }
            sleep(Duration::from_millis(100));
        };
        let line = told.lines().last().unwrap_or_default();
        let (said, what) = line.split_once(' ').unwrap_or_default();
        let right = format!("{} {} ", self.v.address(false, 0).ip(), OF_V.gateway(false));
        let renewed = told.lines().count() == lease.leases.len() + 1 && said == kind;
        lease.leases.push(what.to_owned());
        let addresses = global_addresses(lab, &self.v.name)?;
        lease.addresses.push(addresses);
        let unchanged = lease.leases.iter().all(|l| *l == lease.leases[0])
            && lease.addresses.iter().all(|a| *a == lease.addresses[0]);
        lease.kept &= renewed && unchanged && what.starts_with(&right);
        Ok(())
    }
}

/// The address by which the gateway of a network is asked for an echo, where a guest has only its link-local one.
fn scoped(gateway: IpAddr, net: Net) -> IpAddr {
    match gateway {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => net.gateway(true),
        ip => ip,
    }
}

/// v under QEMU, which knows nothing of its addresses.
fn start_guest(lab: &mut Lab, v: &VmSpec) -> Result<()> {
    let kernel = Kernel::get()?;
    let file = lab.dir.join("guest.cpio");
    let mut image = Image::new(&kernel, &lab.bins.lab)?;
    image
        .program(FilePath::new(TRACEROUTE), "/usr/bin/traceroute")
        .context("install the package traceroute")?;
    image.file("/usr/bin/lease", 0o755, SCRIPT.as_bytes());
    image.write(&file)?;
    lab.start_guest_by(v, GuestSpec::new("v", &kernel.image, &file), "a", 1, configure).map(drop)
}

/// Lets the guest ask for its addresses.
fn configure(guest: &mut Guest, card: &str) -> Result<()> {
    for (key, value) in [("accept_ra", 1), ("router_solicitations", 5)] {
        guest.sh(&format!("echo {value} >/proc/sys/net/ipv6/conf/{card}/{key}"))?;
    }
    guest.sh(&format!("ip link set {card} mtu {GUEST_MTU} up"))?;
    guest.sh(&format!(
        "udhcpc -i {card} -t 20 -T 1 -n -s /usr/bin/lease -p /tmp/udhcpc.pid >/tmp/udhcpc.log 2>&1 \
         || {{ cat /tmp/udhcpc.log; exit 1; }}"
    ))?;
    let started = Instant::now();
    while !guest.sh("ip -6 addr show")?.contains("scope global") {
        ensure!(started.elapsed() < PATIENCE, "nobody has advertised a prefix to guest {}", guest.spec.name);
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The gateway's address that v's default route leads to.
fn advertised(lab: &mut Lab) -> Result<IpAddr> {
    let routes = sh(lab, "v", "ip -6 route show default")?;
    let mut words = routes.split_whitespace().skip_while(|w| *w != "via");
    words.nth(1).and_then(|w| w.parse().ok()).with_context(|| format!("v has no default route: {routes:?}"))
}

/// A guest's IPv6 addresses, without how long they live.
fn global_addresses(lab: &mut Lab, vm: &str) -> Result<String> {
    let all = sh(lab, vm, "ip -6 addr show scope global")?;
    let of = |l: &str| l.trim().strip_prefix("inet6 ").and_then(|l| l.split(' ').next().map(str::to_owned));
    Ok(all.lines().filter_map(of).collect::<Vec<_>>().join(" "))
}
