//! A bond with LACP whose frames are in a VLAN, and a partner that bonds and tags: one leg is pulled under traffic,
//! then plugged in again.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_api::v1::{self, NveDefinition};
use serde::Serialize;

use super::Fabric;
use super::partner::Partner;
use crate::agent::client::Agent;
use crate::clock::now_ns;
use crate::cmd;
use crate::lab::nve::Locator;
use crate::lab::process::Process;
use crate::lab::topology::{self, GUEST_MTU, UNDERLAY_MTU, UPLINK};
use crate::lab::vm::{VmSpec, start_agent};
use crate::lab::{Lab, LabSpec};
use crate::scenario::interop::vxlan_device;
use crate::scenario::report::{self, thousands};
use crate::traffic::{End, Stream, Talk, Traffic, TrafficSpec, run};

/// The VLAN of the underlay.
const VLAN: u16 = 100;
/// The switch's interfaces and the partner's ends of the same wires.
const LEGS: [(&str, &str); 2] = [("leg0", "o0"), ("leg1", "o1")];
/// The other NVE's wire at the partner.
const ACCESS: &str = "p0";
/// How long both ends may take to agree.
const AGREE: Duration = Duration::from_secs(30);
/// How long a lost leg may go unnoticed. A card tells of a lost link at once; packet sockets do not, so that here
/// LACP finds out, by its short timeout of 3 s (IEEE 802.1AX), with nine for what a busy machine takes.
const NOTICE: Duration = Duration::from_secs(12);

/// Nanoseconds after both ends' agreement for what is sent before the partner takes it.
const SETTLE: u64 = 1_000_000_000;

const SWITCH: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);

/// What was found.
#[derive(Debug, Serialize)]
struct Outcome {
    part: &'static str,
    rate: u32,
    /// The leg that was pulled: the one that carried the most.
    pulled: String,
    /// From the pull to the switch's word that the leg carries no more, in milliseconds.
    noticed_ms: u64,
    /// From plugging in to both ends' agreement.
    returned_ms: u64,
    /// All of the traffic.
    talk: Talk,
    /// What was lost of it from v to x and from x to v.
    lost: [Lost; 2],
    passed: bool,
}

/// What was lost one way, by when it was sent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Lost {
    /// Between the pull and the word on it.
    unnoticed: u64,
    /// From plugging in until a second after both ends agreed: the driver sends by a leg as soon as the partner agrees,
    /// which may be a moment before that one takes frames.
    at_return: u64,
    /// At any other time.
    otherwise: u64,
}

impl Fabric {
    /// Runs this part.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub(super) fn bond(&self) -> Result<(bool, serde_json::Value)> {
        let bins = self.common.prepare(&["bridge", "ovs-vswitchd", "ovsdb-tool"])?;
        println!(
            "Godwit lab: a bond with LACP in VLAN {VLAN}\n  VM v at switch a talks to VM x behind Linux's vxlan \
             device, {} packets a second each way;\n  Open vSwitch bonds and tags between them, and one leg is \
             pulled.\n",
            thousands(self.rate.into())
        );
        let mut lab = Lab::start(&LabSpec::new(&[], false, &self.common.switch_options()), &bins)?;
        let result = self.bond_in(&mut lab);
        let outcome = report::end_or_keep(self.common.keep, &mut lab, result, |r| r.passed)?;
        Ok((outcome.passed, serde_json::to_value(&outcome)?))
    }

    fn bond_in(&self, lab: &mut Lab) -> Result<Outcome> {
        let (v, x) = (VmSpec::numbered("v", 10), VmSpec::numbered("x", 40));
        let partner = wires(lab)?;
        lab.add_switch("a", 1, &uplink(), &self.common.switch_options())?;
        wait_for_legs(lab, 2).with_context(|| partner.lacp().unwrap_or_default())?;
        let foreign = Locator { v4: Some(PEER), v6: None };
        let definition = NveDefinition { name: "linux".into(), locators: Some(foreign.to_proto()) };
        lab.nva.operator.define_nve(definition)?;
        lab.define_vm(&x, "linux")?;
        lab.start_vm(v.clone(), "a")?;
        let (_process, mut agent_x) = peer(lab, &x, &v)?;

        let spec =
            TrafficSpec { rate: self.rate, one_way: false, payload: 100, big_every: 10, tcp_rate_bit: 0 };
        let traffic = {
            let mut end_v = End { agent: &mut lab.vm("v")?.agent, address: v.address(false, 0) };
            let mut end_x = End { agent: &mut agent_x, address: x.address(false, 0) };
            Traffic::open(1, spec, GUEST_MTU, &mut end_v, &mut end_x)?
        };
        run(&mut lab.vm("v")?.agent)?;
        run(&mut agent_x)?;
        let time = Duration::from_secs_f64(self.duration);
        thread::sleep(time);
        let leg = busiest(lab)?;
        let from = now_ns();
        let noticed = pull(lab, leg)?;
        let to = now_ns();
        thread::sleep(time);
        let (plugged, again) = (Instant::now(), now_ns());
        set_link(lab, leg, "up")?;
        wait_for_legs(lab, 2).with_context(|| partner.lacp().unwrap_or_default())?;
        let returned = plugged.elapsed();
        let settled = now_ns() + SETTLE;
        thread::sleep(time);
        let talk = traffic.finish(&mut lab.vm("v")?.agent, &mut agent_x)?;
        lab.check_processes()?;

        let lost = [&talk.a_to_b, &talk.b_to_a].map(|s| lost_of(s, from..to, again..settled));
        // What the partner does not take yet, for a second, and longer where a busy machine takes longer to agree.
        let at_return = (f64::from(self.rate) * (1.0 + returned.as_secs_f64() / 2.0)) as u64;
        let whole = |s: &Stream| s.sent > 0 && s.duplicated == 0 && s.corrupt == 0;
        let passed = whole(&talk.a_to_b)
            && whole(&talk.b_to_a)
            && lost.iter().all(|l| l.otherwise == 0 && l.at_return <= at_return)
            && noticed <= NOTICE;
        let outcome = Outcome {
            part: "bond",
            rate: self.rate,
            pulled: LEGS[leg].0.into(),
            noticed_ms: noticed.as_millis() as u64,
            returned_ms: returned.as_millis() as u64,
            talk,
            lost,
            passed,
        };
        print_outcome(&outcome);
        Ok(outcome)
    }
}

fn uplink() -> String {
    let member =
        |(n, (leg, _)): (usize, &(&str, &str))| format!("\"net_af_packet{n},iface={leg},framecnt=4096\"");
    let members: Vec<String> = LEGS.iter().enumerate().map(member).collect();
    format!(
        "[[uplink]]\nname = \"{UPLINK}\"\nbond = {{ mode = \"lacp\", members = [{}] }}\nvlan = {VLAN}\n\
         ipv4 = \"{SWITCH}/24\"\n",
        members.join(", ")
    )
}

/// Makes the switch's namespace, the partner's and the other NVE's, and the wires between them.
fn wires(lab: &Lab) -> Result<Partner> {
    let [a, ovs, linux] = ["a", "ovs", "linux"].map(|n| lab.namespace(n));
    for namespace in [&a, &ovs, &linux] {
        topology::add_namespace(namespace)?;
    }
    let wire = |here: (&str, &str), there: (&str, &str)| {
        let mtu = UNDERLAY_MTU;
        let ((ns, name), (other, end)) = (here, there);
        let add = format!("link add {name} mtu {mtu} type veth peer name {end} mtu {mtu} netns {other}");
        cmd::ip_batch(ns, &[add, format!("link set {name} up")])?;
        cmd::ip_batch(other, &[format!("link set {end} up")])?;
        topology::offloads_off(ns, name)?;
        topology::offloads_off(other, end)
    };
    for (leg, end) in LEGS {
        wire((&a, leg), (&ovs, end))?;
    }
    wire((&linux, UPLINK), (&ovs, ACCESS))?;
    let partner = Partner::start(&ovs, &lab.dir)?;
    partner.bond(LEGS.map(|(_, end)| end))?;
    partner.access(ACCESS, VLAN)?;
    Ok(partner)
}

/// Linux's vxlan device behind the partner's access port: it knows nothing of VLANs or bonds.
fn peer(lab: &Lab, x: &VmSpec, v: &VmSpec) -> Result<(Process, Agent)> {
    let ns = lab.namespace("linux");
    topology::guest_addresses(&ns, UPLINK, &[PEER.into()])?;
    vxlan_device(&ns, (IpAddr::V4(PEER), IpAddr::V4(SWITCH)), (x, v), GUEST_MTU)?;
    start_agent(&x.name, &ns, &lab.bins, &lab.dir)
}

fn legs(lab: &Lab) -> Result<Vec<v1::Leg>> {
    let Answer::Ports(list) = lab.nve("a")?.admin.ask(Ask::ListPorts(v1::ListPorts {}))? else {
        bail!("the switch answers something else than its ports");
    };
    let port = list.ports.into_iter().find(|p| p.name == UPLINK);
    Ok(port.context("the switch has no uplink")?.legs)
}

fn wait_for_legs(lab: &Lab, wanted: usize) -> Result<()> {
    let give_up = Instant::now() + AGREE;
    loop {
        let legs = legs(lab)?;
        if legs.iter().filter(|l| l.carries).count() == wanted {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!("{wanted} legs should carry frames after {AGREE:?}: {legs:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The leg by which the most frames went and came just now.
fn busiest(lab: &Lab) -> Result<usize> {
    let before = legs(lab)?;
    thread::sleep(Duration::from_millis(300));
    let grown = |(now, then): (&v1::Leg, &v1::Leg)| {
        (now.rx_packets - then.rx_packets) + (now.tx_packets - then.tx_packets)
    };
    let now = legs(lab)?;
    let grown: Vec<u64> = now.iter().zip(&before).map(grown).collect();
    (0..grown.len()).max_by_key(|n| grown[*n]).context("a bond without legs")
}

/// Pulls a leg's wire and waits until the switch says that it is gone.
fn pull(lab: &Lab, leg: usize) -> Result<Duration> {
    let started = Instant::now();
    set_link(lab, leg, "down")?;
    loop {
        if legs(lab)?.get(leg).is_some_and(|l| !l.carries) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > AGREE {
            bail!("the switch has not noticed in {AGREE:?} that {} is gone", LEGS[leg].0);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// At the partner's end: the switch loses its carrier, and is told nothing.
fn set_link(lab: &Lab, leg: usize, state: &str) -> Result<()> {
    cmd::ip_batch(&lab.namespace("ovs"), &[format!("link set {} {state}", LEGS[leg].1)])
}

/// What did not arrive, by when each range of it was begun: while the loss of the leg was not `noticed`, or at its
/// `back`. What is on its way when a leg is pulled was sent a little before.
fn lost_of(s: &Stream, noticed: Range<u64>, back: Range<u64>) -> Lost {
    const ON_ITS_WAY: u64 = 50_000_000;
    let noticed = noticed.start.saturating_sub(ON_ITS_WAY)..noticed.end;
    let of = |time: &Range<u64>| -> u64 {
        s.missing.iter().filter(|m| time.contains(&m.sent_ns)).map(|m| m.last + 1 - m.first).sum()
    };
    let (unnoticed, at_return) = (of(&noticed), of(&back));
    Lost { unnoticed, at_return, otherwise: s.lost.saturating_sub(unnoticed + at_return) }
}

fn print_outcome(o: &Outcome) {
    for (way, s, lost) in [("v to x", &o.talk.a_to_b, o.lost[0]), ("x to v", &o.talk.b_to_a, o.lost[1])] {
        println!(
            "    {way}: {} sent, longest silence {:.0} ms; {} lost until the loss of {} was noticed, {} at its \
             return, {} otherwise",
            thousands(s.sent),
            s.gap_ms_max,
            lost.unnoticed,
            o.pulled,
            lost.at_return,
            lost.otherwise
        );
    }
    println!(
        "    the switch noticed after {} ms; the leg carried again {} ms after it was plugged in",
        o.noticed_ms, o.returned_ms
    );
}
