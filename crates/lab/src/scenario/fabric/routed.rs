//! Two uplinks with BGP: FRR on the switch's exception ports is a neighbor of two leaves, and its routes in the kernel
//! are the switch's. Under traffic one uplink dies with its link up, loses its link, and is taken out by the daemon.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_api::v1::{self, NveDefinition};
use serde::Serialize;

use super::Fabric;
use super::routers::{Bgp, HOLD_S, Router};
use crate::agent::client::Agent;
use crate::agent::proto::Request;
use crate::clock::{ms, now_ns};
use crate::cmd;
use crate::lab::nve::Locator;
use crate::lab::process::Process;
use crate::lab::topology::{self, GUEST_MTU, UNDERLAY_MTU, UPLINK};
use crate::lab::vm::{VmSpec, start_agent};
use crate::lab::{Lab, LabSpec};
use crate::scenario::interop::vxlan_device;
use crate::scenario::report::{self, thousands};
use crate::traffic::{End, Stream, Talk, Traffic, TrafficSpec, drain, run};

/// The switch's locator, on its host's loopback.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The other NVE, behind the spine.
const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 9);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 1);
const PEER_NET: &str = "198.18.9.0/24";
const LEAVES: [&str; 2] = ["leaf1", "leaf2"];
/// Flows, so that some go by each leaf.
const FLOWS: u32 = 8;
/// How long routes and next hops may take to be as they should.
const AGREE: Duration = Duration::from_secs(60);
/// A next hop that falls silent is out of use after so long: 1,000 ms and three questions of 300 ms.
const SILENCE: Duration = Duration::from_millis(1900);
/// A link that is gone is seen after so long.
const LINK: Duration = Duration::from_millis(100);
/// When both ends have agreed on the ways in use, what was sent before that has arrived or is lost after so long.
const SETTLE: Duration = Duration::from_secs(1);

/// How an uplink goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Loss {
    /// The leaf takes and sends nothing, and the link stays up.
    Silent,
    /// The link goes.
    Link,
    /// The leaf's daemon sends its traffic elsewhere first.
    TakenOut,
}

impl Loss {
    fn what(self) -> &'static str {
        match self {
            Loss::Silent => "dead, link up",
            Loss::Link => "link down",
            Loss::TakenOut => "taken out by BGP",
        }
    }

    /// How long frames to the other NVE, and back, may be lost: what the switch takes, and what BGP takes at the
    /// spine, and what a busy machine takes besides.
    fn bounds(self, slack: Duration) -> [Duration; 2] {
        match self {
            Loss::Silent => [SILENCE + slack, Duration::from_secs(HOLD_S) + slack],
            Loss::Link => [LINK + slack; 2],
            Loss::TakenOut => [Duration::ZERO; 2],
        }
    }
}

/// What became of all flows together in a while.
#[derive(Clone, Copy, Default, Debug, Serialize)]
struct Sum {
    lost: u64,
    /// The longest silence of a flow, in milliseconds.
    gap_ms: f64,
    /// Flows that lost something.
    hit: usize,
}

/// What a while begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    /// Both uplinks are there, or one returns.
    Both,
    /// One is lost.
    Lost(Loss),
    /// Both ends have agreed on the other one.
    Settled,
}

impl Event {
    fn what(self) -> &'static str {
        match self {
            Event::Both => "both uplinks",
            Event::Lost(loss) => loss.what(),
            Event::Settled => "the other alone",
        }
    }
}

/// A while that begins with an uplink's loss, the agreement on the other, or its return.
#[derive(Debug, Serialize)]
struct Step {
    begins: Event,
    there: Sum,
    back: Sum,
    /// Longest time for which frames may be lost, in milliseconds, there and back.
    bounds_ms: [u64; 2],
    passed: bool,
}

#[derive(Debug, Serialize)]
struct Outcome {
    part: &'static str,
    rate: u32,
    flows: u32,
    /// Packets sent, there and back.
    sent: [u64; 2],
    steps: Vec<Step>,
    passed: bool,
}

/// The fabric's routers; the switch's host has one, too.
struct Routers {
    host: Router,
    leaves: [Router; 2],
    spine: Router,
}

impl Fabric {
    /// Runs this part.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub(super) fn routed(&self) -> Result<(bool, serde_json::Value)> {
        let bins = self.common.prepare(&["bridge", "vtysh"])?;
        Router::available()?;
        println!(
            "Godwit lab: two uplinks with BGP\n  VM v at switch a talks to VM x behind Linux's vxlan device, {FLOWS} \
             flows of {} packets a second each way\n  together; a's host has FRR on the exception ports, and \
             two leaves and a spine between them speak BGP.\n",
            thousands(self.rate.into())
        );
        let mut lab = Lab::start(&LabSpec::new(&[], false, &self.common.switch_options()), &bins)?;
        let result = self.routed_in(&mut lab);
        let outcome = report::end_or_keep(self.common.keep, &mut lab, result, |r| r.passed)?;
        Ok((outcome.passed, serde_json::to_value(&outcome)?))
    }

    fn routed_in(&self, lab: &mut Lab) -> Result<Outcome> {
        let (v, x) = (VmSpec::numbered("v", 10), VmSpec::numbered("x", 40));
        wires(lab)?;
        lab.add_switch("a", 1, &uplinks(), &self.common.switch_options())?;
        let mut routers = routers(lab)?;
        let foreign = Locator { v4: Some(PEER), v6: None };
        let definition = NveDefinition { name: "linux".into(), locators: Some(foreign.to_proto()) };
        lab.nva.operator.define_nve(definition)?;
        lab.define_vm(&x, "linux")?;
        lab.start_vm(v.clone(), "a")?;
        let (_process, mut agent_x) = peer(lab, &x, &v)?;

        agree(lab, &routers, 2)?;
        let talks = self.open(lab, (&v, &x), &mut agent_x)?;
        run(&mut lab.vm("v")?.agent)?;
        run(&mut agent_x)?;
        let mut begun = vec![(Event::Both, now_ns())];
        let rest = || thread::sleep(Duration::from_secs_f64(self.duration));
        rest();
        for loss in [Loss::Silent, Loss::Link, Loss::TakenOut] {
            begun.push((Event::Lost(loss), now_ns()));
            lose(lab, &routers, loss)?;
            agree(lab, &routers, 1)?;
            thread::sleep(SETTLE);
            begun.push((Event::Settled, now_ns()));
            rest();
            begun.push((Event::Both, now_ns()));
            restore(lab, &routers, loss)?;
            agree(lab, &routers, 2)?;
            rest();
        }
        let agent_v = &mut lab.vm("v")?.agent;
        agent_v.order(&Request::Stop)?;
        agent_x.order(&Request::Stop)?;
        drain(&talks, agent_v, &mut agent_x)?;
        let judged: Vec<Talk> =
            talks.iter().map(|t| t.judge(agent_v, &mut agent_x)).collect::<Result<_>>()?;
        lab.check_processes()?;
        routers.host.check()?;
        routers.spine.check()?;
        routers.leaves.iter_mut().try_for_each(Router::check)?;
        let outcome = self.outcome(&judged, &begun);
        print_outcome(&outcome);
        Ok(outcome)
    }

    /// Opens all flows.
    fn open(&self, lab: &mut Lab, (v, x): (&VmSpec, &VmSpec), agent_x: &mut Agent) -> Result<Vec<Traffic>> {
        let spec = TrafficSpec {
            rate: self.rate / FLOWS,
            one_way: false,
            payload: 100,
            big_every: 10,
            tcp_rate_bit: 0,
        };
        let agent_v = &mut lab.vm("v")?.agent;
        let mut talks = Vec::new();
        for probe in 1..=FLOWS {
            let mut end_v = End { agent: &mut *agent_v, address: v.address(false, 0) };
            let mut end_x = End { agent: &mut *agent_x, address: x.address(false, 0) };
            talks.push(Traffic::open(probe, spec, GUEST_MTU, &mut end_v, &mut end_x)?);
        }
        Ok(talks)
    }

    fn outcome(&self, talks: &[Talk], begun: &[(Event, u64)]) -> Outcome {
        let slack = Duration::from_secs_f64(self.slack);
        let ends = begun.iter().skip(1).map(|(_, at)| *at).chain([u64::MAX]);
        let step = |(&(begins, from), to): (&(Event, u64), u64)| {
            let there = sum(talks.iter().map(|t| &t.a_to_b), from, to);
            let back = sum(talks.iter().map(|t| &t.b_to_a), from, to);
            let bounds = match begins {
                Event::Lost(loss) => loss.bounds(slack),
                Event::Both | Event::Settled => [Duration::ZERO; 2],
            };
            let within =
                |s: &Sum, bound: Duration| s.lost <= (f64::from(self.rate) * bound.as_secs_f64()) as u64;
            let passed = within(&there, bounds[0]) && within(&back, bounds[1]);
            Step { begins, there, back, bounds_ms: bounds.map(|b| b.as_millis() as u64), passed }
        };
        let steps: Vec<Step> = begun.iter().zip(ends).map(step).collect();
        let sound = |s: &Stream| s.sent > 0 && s.duplicated == 0 && s.corrupt == 0;
        let passed =
            steps.iter().all(|s| s.passed) && talks.iter().all(|t| sound(&t.a_to_b) && sound(&t.b_to_a));
        let sent = [talks.iter().map(|t| t.a_to_b.sent).sum(), talks.iter().map(|t| t.b_to_a.sent).sum()];
        Outcome { part: "routed", rate: self.rate, flows: FLOWS, sent, steps, passed }
    }
}

/// What the flows of one direction lost of what was sent from one moment to another.
fn sum<'a>(streams: impl Iterator<Item = &'a Stream>, from: u64, to: u64) -> Sum {
    streams.fold(Sum::default(), |sum, s| {
        let missing = s.missing.iter().filter(|m| (from..to).contains(&m.sent_ns));
        let lost: u64 = missing.map(|m| m.last - m.first + 1).sum();
        let gaps = s.gaps.iter().filter(|g| (from..to).contains(&g.to_ns));
        let gap = gaps.map(|g| ms(g.to_ns - g.from_ns)).fold(0.0, f64::max);
        Sum { lost: sum.lost + lost, gap_ms: sum.gap_ms.max(gap), hit: sum.hit + usize::from(lost > 0) }
    })
}

/// The address of `a` (1) or of a leaf (0) on the wire between them.
fn link(leaf: usize, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, leaf as u8 + 1, end)
}

/// The address of the spine (1) or of a leaf (0) on the wire between them.
fn trunk(leaf: usize, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, leaf as u8 + 1, end)
}

fn uplinks() -> String {
    let uplink = |n: usize| {
        format!(
            "\n[[uplink]]\nname = \"up{n}\"\ndevargs = \"net_af_packet{n},iface=wire{n},framecnt=8192\"\n\
             ipv4 = \"{}/31\"\nexception = \"net_tap10{n},iface=fab{n}\"\n",
            link(n, 1)
        )
    };
    format!("[underlay]\nlocator4 = \"{OWN}\"\nroutes = \"kernel\"\n{}{}", uplink(0), uplink(1))
}

/// Makes all namespaces and the wires between them. Between a and each leaf there is a bridge, so that a leaf can die
/// without a's link going down.
fn wires(lab: &Lab) -> Result<()> {
    for name in ["a", "between", "spine", "linux"].iter().chain(&LEAVES) {
        let ns = lab.namespace(name);
        topology::add_namespace(&ns)?;
        let router = LEAVES.contains(name) || *name == "spine";
        let mut settings =
            vec![("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")];
        if router {
            settings.extend([("net/ipv4/ip_forward", "1"), ("net/ipv4/fib_multipath_hash_policy", "1")]);
        }
        topology::set_sysctls(&ns, &settings)?;
    }
    for (n, leaf) in LEAVES.into_iter().enumerate() {
        let bridge = format!("br{n}");
        let lines = [
            format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            format!("link set {bridge} mtu {UNDERLAY_MTU} up"),
        ];
        cmd::ip_batch(&lab.namespace("between"), &lines)?;
        wire(lab, ("a", &format!("wire{n}")), ("between", &format!("a{n}")))?;
        wire(lab, (leaf, "down0"), ("between", &format!("l{n}")))?;
        for end in ["a", "l"] {
            cmd::ip_batch(&lab.namespace("between"), &[format!("link set {end}{n} master {bridge}")])?;
        }
        wire(lab, (leaf, "up0"), ("spine", &format!("down{n}")))?;
        address(lab, leaf, "down0", &format!("{}/31", link(n, 0)))?;
        address(lab, leaf, "up0", &format!("{}/31", trunk(n, 0)))?;
        address(lab, "spine", &format!("down{n}"), &format!("{}/31", trunk(n, 1)))?;
        // What a's kernel sees of the wire that is the switch's is none of its business.
        let strict = format!("net/ipv4/conf/wire{n}/rp_filter");
        topology::set_sysctls(&lab.namespace("a"), &[(&strict, "1")])?;
    }
    wire(lab, ("linux", UPLINK), ("spine", "peer0"))?;
    address(lab, "spine", "peer0", &format!("{GATEWAY}/24"))?;
    address(lab, "a", "lo", &format!("{OWN}/32"))
}

fn wire(lab: &Lab, (here, name): (&str, &str), (there, end): (&str, &str)) -> Result<()> {
    let (ns, other, mtu) = (lab.namespace(here), lab.namespace(there), UNDERLAY_MTU);
    let add = format!("link add name {name} mtu {mtu} type veth peer name {end} mtu {mtu} netns {other}");
    cmd::ip_batch(&ns, &[add, format!("link set {name} up")])?;
    cmd::ip_batch(&other, &[format!("link set {end} up")])?;
    topology::offloads_off(&ns, name)?;
    topology::offloads_off(&other, end)
}

fn address(lab: &Lab, ns: &str, interface: &str, address: &str) -> Result<()> {
    cmd::ip_batch(&lab.namespace(ns), &[format!("address add {address} dev {interface}")])
}

/// Starts FRR everywhere; on a's host, on the switch's exception ports.
fn routers(lab: &Lab) -> Result<Routers> {
    for n in 0..LEAVES.len() {
        let interface = format!("fab{n}");
        address(lab, "a", &interface, &format!("{}/31", link(n, 1)))?;
        cmd::ip_batch(&lab.namespace("a"), &[format!("link set {interface} up")])?;
    }
    let start = |name: &str, asn, id, neighbors, networks: &[String]| {
        let bgp = Bgp { asn, id, neighbors, networks: networks.to_vec() };
        Router::start(name, &lab.namespace(name), &bgp, &lab.dir)
    };
    let leaf = |n: usize| {
        let neighbors = vec![(link(n, 1), 65001), (trunk(n, 1), 65020)];
        start(LEAVES[n], 65011 + n as u32, trunk(n, 0), neighbors, &[])
    };
    let below = (0..2).map(|n| (link(n, 0), 65011 + n as u32)).collect();
    let leaves = (0..2).map(|n| (trunk(n, 0), 65011 + n as u32)).collect();
    Ok(Routers {
        host: start("a", 65001, OWN, below, &[format!("{OWN}/32")])?,
        leaves: [leaf(0)?, leaf(1)?],
        spine: start("spine", 65020, GATEWAY, leaves, &[PEER_NET.into()])?,
    })
}

/// Linux's vxlan device behind the spine.
fn peer(lab: &Lab, x: &VmSpec, v: &VmSpec) -> Result<(Process, Agent)> {
    let ns = lab.namespace("linux");
    topology::guest_addresses(&ns, UPLINK, &[PEER.into()])?;
    cmd::ip_batch(&ns, &[format!("route add default via {GATEWAY}")])?;
    vxlan_device(&ns, (IpAddr::V4(PEER), IpAddr::V4(OWN)), (x, v), GUEST_MTU)?;
    start_agent(&x.name, &ns, &lab.bins, &lab.dir)
}

/// The next hops of the switch towards the other NVE that carry flows.
fn carrying(lab: &Lab) -> Result<usize> {
    let Answer::Underlay(u) = lab.nve("a")?.admin.ask(Ask::GetUnderlay(v1::GetUnderlay {}))? else {
        bail!("the switch answers something else than its underlay");
    };
    let remote = u.remotes.iter().find(|r| r.locator == PEER.to_string());
    Ok(remote.map_or(0, |r| r.next_hops.iter().filter(|h| h.shares > 0).count()))
}

/// Waits until the switch and the spine's kernel use so many ways.
fn agree(lab: &Lab, routers: &Routers, wanted: usize) -> Result<()> {
    let give_up = Instant::now() + AGREE;
    loop {
        let (there, back) = (carrying(lab)?, routers.spine.next_hops(&format!("{OWN}/32"))?);
        // A single next hop is told in the route itself.
        if there == wanted && back == wanted {
            return Ok(());
        }
        if Instant::now() > give_up {
            let host = cmd::run_in(&lab.namespace("a"), "ip", &["route"])?;
            bail!(
                "{wanted} ways should be in use: the switch has {there}, the spine {back}; a's kernel has\n{host}"
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The end of the first leaf's wire, where it is cut.
fn cut(lab: &Lab, end: &str, state: &str) -> Result<()> {
    cmd::ip_batch(&lab.namespace("between"), &[format!("link set {end} {state}")])
}

fn lose(lab: &Lab, routers: &Routers, loss: Loss) -> Result<()> {
    match loss {
        // The bridge between them goes on, with nobody at its other end: the leaf does not see that either.
        Loss::Silent => cut(lab, "l0", "nomaster"),
        Loss::Link => {
            cut(lab, "a0", "down")?;
            cut(lab, "l0", "down")
        }
        Loss::TakenOut => routers.leaves[0].configure(&["router bgp 65011", "bgp graceful-shutdown"]),
    }
}

fn restore(lab: &Lab, routers: &Routers, loss: Loss) -> Result<()> {
    match loss {
        Loss::Silent => cut(lab, "l0", "master br0"),
        Loss::Link => {
            cut(lab, "a0", "up")?;
            cut(lab, "l0", "up")
        }
        Loss::TakenOut => routers.leaves[0].configure(&["router bgp 65011", "no bgp graceful-shutdown"]),
    }
}

fn print_outcome(o: &Outcome) {
    let [there, back] = o.sent.map(thousands);
    println!("    {there} packets from v to x and {back} from x to v, in {} flows each", o.flows);
    for step in &o.steps {
        let of = |s: &Sum, bound: u64| {
            let lost = matches!(step.begins, Event::Lost(_));
            let bound = if lost { format!(" (at most {bound} ms)") } else { String::new() };
            format!("{:>5} lost in {} flows, longest silence {:>5.0} ms{bound}", s.lost, s.hit, s.gap_ms)
        };
        println!(
            "    {:<18} v to x {}\n    {:<18} x to v {}",
            step.begins.what(),
            of(&step.there, step.bounds_ms[0]),
            if step.passed { "" } else { "FAILED" },
            of(&step.back, step.bounds_ms[1]),
        );
    }
}
