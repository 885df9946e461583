//! Linux's bridge as a snooping switch behind a VM's port, and as a querier: it gives way to the switch, the switch
//! takes it for a multicast router when it asks behind a router VM, and both name the same members.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::stream::{ToGroup, group};
use super::{NVES, verdict};
use crate::agent::proto::Request;
use crate::capture::Capture;
use crate::clock::wall_us;
use crate::cmd;
use crate::copies::{self, Copy};
use crate::lab::Lab;
use crate::lab::nve::Locator;
use crate::lab::topology::GUEST;
use crate::scenario::addresses::{nested::nest, vm_set};
use crate::scenario::interop::only;
use crate::scenario::routed::domain::{Domain, Net, start};

/// The network: its gateway is the querier while nobody else asks.
const NET: Net = Net(1);
/// The VM whose bridge asks, at the first switch.
const QUERIER: &str = "q";
/// A member, at the second switch, and one behind the snooping bridge of a VM at the third.
const MEMBER: &str = "v";
const BRIDGE: &str = "m";
const BEHIND: &str = "w";
/// Who sends, at the last switch.
const SENDER: &str = "p";
const RATE: u32 = 500;
/// How long something may take to be so. Last members have two seconds, and each of two queriers asks for itself.
const PATIENCE: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(50);
/// Copies are looked at for so long.
const WINDOW: Duration = Duration::from_millis(500);
/// Linux's bridge asks so often, and forgets who has not answered for so long, both in hundredths of a second.
const INTERVAL_CS: u32 = 100;
const FORGETS_CS: u32 = 400;
/// Long enough for it to have forgotten.
const KEPT: Duration = Duration::from_secs(6);

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// Looks at both tables of members, by what was so then.
    looks: Vec<Look>,
    passed: bool,
}

impl Outcome {
    pub fn is_right(&self) -> bool {
        self.passed
    }
}

/// One look at what both sides think.
#[derive(Debug, Serialize)]
struct Look {
    what: String,
    family: u8,
    /// Linux's querier has the group in its table, once it asks.
    linux: Option<bool>,
    /// Switches for which copies leave the sender's.
    copies: BTreeSet<&'static str>,
    /// For which they should.
    expected: BTreeSet<&'static str>,
}

/// The lab with its VMs, and what was seen so far.
struct Scene<'a> {
    lab: &'a mut Lab,
    v6_underlay: bool,
    streams: [ToGroup; 2],
    /// The times of looks, which the capture is asked about in the end.
    looks: Vec<(Look, u64, u64)>,
    good: bool,
}

/// Carries it out.
///
/// # Errors
/// Where any step fails.
pub(super) fn run(lab: &mut Lab, outer: u8) -> Result<Outcome> {
    println!(
        "\n  queriers: Linux's bridge of q at a asks, that of m at c snoops; v at b and w behind m are members; p at d \
         sends"
    );
    Domain::create(lab, &[NET.bridged()])?;
    start(lab, NET, NET.vm(BRIDGE, 40), NVES[2])?;
    start(lab, NET, NET.vm(MEMBER, 10), NVES[1])?;
    start(lab, NET, NET.vm(SENDER, 20), NVES[3])?;
    let behind = NET.vm(BEHIND, 41);
    vm_set(lab, BRIDGE, &["--nested", &behind.mac.to_string()])?;
    nest(lab, BRIDGE, behind)?;
    let capture = Capture::start(&lab.namespace("net"), &format!("u-{}", NVES[3]), &lab.dir)?;
    let gives_way = ours_asks(lab)?;
    let ends = (SENDER, MEMBER);
    let streams = [ToGroup::open(lab, false, RATE, ends)?, ToGroup::open(lab, true, RATE, ends)?];
    let mut scene = Scene { lab, v6_underlay: outer == 6, streams, looks: Vec::new(), good: gives_way };
    scene.lab.vm(SENDER)?.agent.order(&Request::Run)?;
    for stream in scene.streams.clone() {
        stream.add(scene.lab, BEHIND)?;
    }
    scene.bridge_follows()?;
    scene.theirs_asks()?;
    scene.lab.vm(SENDER)?.agent.order(&Request::Stop)?;
    let copies = copies::read(&capture.end_in_file()?)?;
    scene.lab.check_processes()?;
    Ok(scene.judge(&copies))
}

/// The bridge of m asks while nobody else does; the switch asks by the gateway's addresses, which are lower, and the
/// bridge gives way (RFC 3376 section 6.6.2, RFC 3810 section 7.6.2). False where it does not.
fn ours_asks(lab: &mut Lab) -> Result<bool> {
    snoop(lab, BRIDGE)?;
    set(lab, BRIDGE, "mcast_querier 1")?;
    let mut good = verdict(
        wait(|| Ok(queries(lab, BRIDGE)?.iter().all(|q| q.sent > 0)))?,
        "nobody asks: Linux's bridge of m does, in both families",
    );
    // The switch asks the VMs of a VN that it begins to snoop.
    lab.ctl(&["vn", "set", &NET.network().name, "--multicast", "snoop"])?;
    let heard = wait(|| Ok(queries(lab, BRIDGE)?.iter().all(|q| q.heard > 0)))?;
    good &= verdict(heard, "the switch asks, too, in both families");
    let before = queries(lab, BRIDGE)?.map(|q| q.sent);
    sleep(KEPT);
    let after = queries(lab, BRIDGE)?.map(|q| q.sent);
    let text = format!(
        "Linux's bridge, whose addresses are higher, gives way: {} queries in {} s, it would be {} and more",
        after.iter().sum::<u64>() - before.iter().sum::<u64>(),
        KEPT.as_secs(),
        2 * (100 * KEPT.as_secs() / u64::from(INTERVAL_CS) - 1),
    );
    good &= verdict(before == after, &text);
    Ok(good)
}

/// Has the bridge that is a VM's card snoop, and ask often if it is to ask.
fn snoop(lab: &Lab, vm: &str) -> Result<()> {
    set(
        lab,
        vm,
        &format!(
            "mcast_snooping 1 mcast_stats_enabled 1 mcast_igmp_version 3 mcast_mld_version 2 \
             mcast_query_use_ifaddr 1 mcast_query_interval {INTERVAL_CS} mcast_query_response_interval 100 \
             mcast_startup_query_interval 100"
        ),
    )
}

fn set(lab: &Lab, vm: &str, what: &str) -> Result<()> {
    cmd::sh(&format!("ip -n {} link set {GUEST} type bridge {what}", lab.namespace(vm))).map(drop)
}

/// Queries of one family that a bridge counted at the port towards its switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Queries {
    sent: u64,
    heard: u64,
}

/// Of IGMP, and of MLD.
fn queries(lab: &mut Lab, vm: &str) -> Result<[Queries; 2]> {
    let tap = lab.vm(vm)?.attached.clone().context("the VM is attached")?.tap;
    let line = format!("ip -n {} -j link xstats type bridge_slave dev {tap}", lab.namespace(vm));
    counted(&cmd::sh(&line)?).with_context(|| format!("counters of {tap}"))
}

fn counted(json: &str) -> Result<[Queries; 2]> {
    let all: serde_json::Value = serde_json::from_str(json)?;
    let counts = &all[0]["multicast"];
    let sum = |of: &serde_json::Value, way: &str| -> Result<u64> {
        let of = of.as_object().context("no counters of queries")?;
        Ok(of.iter().filter(|(key, _)| key.starts_with(way)).filter_map(|(_, n)| n.as_u64()).sum())
    };
    let of = |key: &str| -> Result<Queries> {
        Ok(Queries { sent: sum(&counts[key], "tx_")?, heard: sum(&counts[key], "rx_")? })
    };
    Ok([of("igmp_queries")?, of("mld_queries")?])
}

/// Linux's bridge of this VM has the group at any of its ports.
fn has_group(lab: &Lab, vm: &str, group: IpAddr) -> Result<bool> {
    let table = cmd::sh(&format!("bridge -n {} mdb show dev {GUEST}", lab.namespace(vm)))?;
    let group = group.to_string();
    Ok(table.lines().any(|l| l.split_whitespace().skip_while(|w| *w != "grp").nth(1) == Some(&group)))
}

/// True once it is so, false where it does not become so.
fn wait(mut so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if so()? {
            return Ok(true);
        }
        sleep(POLL);
    }
    Ok(false)
}

impl Scene<'_> {
    fn said(&mut self, good: bool, text: &str) {
        self.good &= verdict(good, text);
    }

    /// Linux's snooping bridge passes the reports of who is behind it on, and the streams to it.
    fn bridge_follows(&mut self) -> Result<()> {
        for stream in self.streams.clone() {
            let group = group(stream.v6);
            let here = wait(|| has_group(self.lab, BRIDGE, group))?;
            let comes = wait(|| Ok(stream.received_by(self.lab, BEHIND)?.received > 0))?;
            let text = format!("Linux's bridge of m has {group} at the port of w, and w receives it");
            self.said(here && comes, &text);
        }
        self.look("v and w are members, the switch asks", &[NVES[1], NVES[2]], None)
    }

    /// Linux's bridge of q asks, in old versions and in new ones.
    fn theirs_asks(&mut self) -> Result<()> {
        start(self.lab, NET, NET.vm(QUERIER, 30), NVES[0])?;
        let spec = NET.vm(QUERIER, 30);
        self.lab.define_router(&spec, true)?;
        snoop(self.lab, QUERIER)?;
        set(self.lab, QUERIER, &format!("mcast_membership_interval {FORGETS_CS}"))?;
        for (igmp, mld) in [(2, 1), (3, 2)] {
            let versions = format!("IGMPv{igmp} and MLDv{mld}");
            set(self.lab, QUERIER, "mcast_querier 0")?;
            set(
                self.lab,
                QUERIER,
                &format!("mcast_igmp_version {igmp} mcast_mld_version {mld} mcast_querier 1"),
            )?;
            self.members_come_and_go(&versions)?;
        }
        Ok(())
    }

    /// Both are members; then one is, then nobody, then both again.
    fn members_come_and_go(&mut self, versions: &str) -> Result<()> {
        let [a, b, c, _] = NVES;
        self.wait_table(true)?;
        // What nobody answers for is forgotten: each answer has come by the switches.
        sleep(KEPT);
        self.look(&format!("q asks in {versions}; v and w are members"), &[a, b, c], Some(true))?;
        self.set_member(MEMBER, false)?;
        self.wait_copies_end()?;
        self.look(&format!("{versions}: v has left"), &[a, c], Some(true))?;
        self.set_member(BEHIND, false)?;
        self.wait_table(false)?;
        self.wait_copies_end()?;
        self.look(&format!("{versions}: w has left, too"), &[a], Some(false))?;
        self.set_member(MEMBER, true)?;
        self.set_member(BEHIND, true)
    }

    fn set_member(&mut self, vm: &str, joined: bool) -> Result<()> {
        let streams = self.streams.clone();
        streams.iter().try_for_each(|s| s.set_member_of(self.lab, vm, joined))
    }

    /// Waits until Linux's querier has both groups, or neither.
    fn wait_table(&mut self, there: bool) -> Result<()> {
        for v6 in [false, true] {
            wait(|| Ok(has_group(self.lab, QUERIER, group(v6))? == there))?;
        }
        Ok(())
    }

    /// Who left is asked for, by the switch and by Linux: copies end behind the last question.
    fn wait_copies_end(&self) -> Result<()> {
        sleep(Duration::from_millis(2500));
        Ok(())
    }

    /// Notes what Linux's querier has, if it is asked, and for whom copies leave from now on.
    fn look(&mut self, what: &str, expected: &[&'static str], in_table: Option<bool>) -> Result<()> {
        let from_us = wall_us();
        sleep(WINDOW);
        let until_us = wall_us();
        for (family, v6) in [(4, false), (6, true)] {
            let asked = in_table.map(|_| has_group(self.lab, QUERIER, group(v6)));
            let linux = asked.transpose()?;
            let good = linux == in_table;
            if !good {
                let table = cmd::sh(&format!("bridge -n {} mdb show", self.lab.namespace(QUERIER)))?;
                println!("    q's table:\n{table}");
            }
            self.good &= good;
            let expected = expected.iter().copied().collect();
            let look = Look { what: what.into(), family, linux, copies: BTreeSet::new(), expected };
            self.looks.push((look, from_us, until_us));
        }
        Ok(())
    }

    fn judge(self, copies: &[Copy]) -> Outcome {
        let mut passed = self.good;
        let locators = NVES.iter().zip(1..).map(|(nve, number)| {
            (*nve, only(Locator::numbered(number, !self.v6_underlay, self.v6_underlay)))
        });
        let locators: Vec<(&str, IpAddr)> = locators.collect();
        let mut looks = Vec::new();
        for (mut look, from_us, until_us) in self.looks {
            let group = group(look.family == 6);
            let seen = copies.iter().filter(|c| c.group == group && (from_us..until_us).contains(&c.at_us));
            let to: BTreeSet<IpAddr> = seen.map(|c| c.to).collect();
            look.copies = locators.iter().filter(|(_, ip)| to.contains(ip)).map(|(nve, _)| *nve).collect();
            let list = look.copies.iter().copied().collect::<Vec<_>>().join(", ");
            let table = match look.linux {
                Some(true) => "; it is in the table of Linux's querier",
                Some(false) => "; it is not in the table of Linux's querier",
                None => "",
            };
            let list = if list.is_empty() { "nobody" } else { &list };
            let text = format!("{}: copies of {group} leave for {list}{table}", look.what);
            passed &= verdict(look.copies == look.expected, &text);
            looks.push(look);
        }
        Outcome { looks, passed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_both_families_are_counted_in_all_versions() {
        let text = r#"[{"ifname":"t1m","multicast":{
            "igmp_queries":{"rx_v1":0,"rx_v2":1,"rx_v3":2,"tx_v1":0,"tx_v2":4,"tx_v3":1},
            "igmp_reports":{"rx_v1":9,"tx_v1":9},
            "mld_queries":{"rx_v1":7,"rx_v2":1,"tx_v1":0,"tx_v2":0}}}]"#;
        let [igmp, mld] = counted(text).unwrap();
        assert_eq!((igmp, mld), (Queries { sent: 5, heard: 3 }, Queries { sent: 0, heard: 8 }));
        assert!(counted("[]").is_err(), "an older ip does not show them");
    }
}
