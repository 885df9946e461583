//! The domain with its VMs, and what is looked at around moves.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::domain::{Domain, Net, start};
use super::look::{Entry, echoes, entry, path, sh, wait_reached};
use super::router::{container_ip, start_router};
use super::{Compared, Lease, Plan, Routing, lease};
use crate::lab::Lab;
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

/// The numbers of all its networks.
pub(crate) fn vnis() -> Vec<u32> {
    [OF_V, OF_P, OF_R, ROUTED_ONLY].map(|net| net.network().vni).to_vec()
}

/// The domain with its VMs while v moves.
pub(crate) struct World {
    plan: Plan,
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
    pub fn build(lab: &mut Lab, plan: Plan) -> Result<World> {
        let members = [OF_V.told(plan.managed), OF_P.bridged(), OF_R.bridged(), ROUTED_ONLY.routed_only()];
        let domain = Domain::create(lab, &members)?;
        start(lab, OF_P, OF_P.vm("p", P), "c")?;
        start(lab, ROUTED_ONLY, ROUTED_ONLY.vm("s", S), "a")?;
        start(lab, ROUTED_ONLY, ROUTED_ONLY.vm("t", T), "c")?;
        start_router(lab, &domain, OF_R, ("r", R), "b", "k")?;
        let v = match plan {
            Plan { guests: Guests::Qemu, managed: false } => OF_V.autoconfigured("v", V),
            _ => OF_V.vm("v", V),
        };
        let mut gateways = [false, true].map(|v6| OF_V.gateway(v6));
        let mut seen = Routing::default();
        match plan.guests {
            Guests::Netns => start(lab, OF_V, v.clone(), "a")?,
            Guests::Qemu => {
                lease::start_guest(lab, &v, plan.managed)?;
                gateways[1] = advertised(lab)?;
                seen.lease = Some(Lease { kept: true, ..Lease::default() });
            }
        }
        let mut world = World { plan, v, gateways, moves: 0, before: Vec::new(), seen };
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
        if self.plan.guests == Guests::Qemu {
            lease::renew(lab, &self.v.name, self.plan.managed)?;
        }
        self.look_at_lease(lab, "renew")
    }

    fn look_at_lease(&mut self, lab: &mut Lab, kind: &str) -> Result<()> {
        let right = (&self.v, OF_V.gateway(false));
        self.seen.lease.as_mut().map_or(Ok(()), |lease| lease.look(lab, right, kind))
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
}

/// The address by which the gateway of a network is asked for an echo, where a guest has only its link-local one.
fn scoped(gateway: IpAddr, net: Net) -> IpAddr {
    match gateway {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => net.gateway(true),
        ip => ip,
    }
}

/// The gateway's address that v's default route leads to.
fn advertised(lab: &mut Lab) -> Result<IpAddr> {
    let routes = sh(lab, "v", "ip -6 route show default")?;
    let mut words = routes.split_whitespace().skip_while(|w| *w != "via");
    words.nth(1).and_then(|w| w.parse().ok()).with_context(|| format!("v has no default route: {routes:?}"))
}
