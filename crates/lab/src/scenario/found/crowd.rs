//! Some two hundred VMs start, and are defined, while the NVA stands still: half of them have been defined with another
//! address before, half are unknown.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_wire::Mac;
use nix::sys::signal::Signal;

use super::signal;
use crate::agent::announce;
use crate::agent::proto::Announcement;
use crate::lab::nve::{Binaries, Hugepages, SwitchOptions};
use crate::lab::topology::set_sysctls;
use crate::lab::vm::{Network, VmSpec};
use crate::lab::{Lab, LabSpec, VNI};
use crate::{cmd, netns};

const SWITCHES: [&str; 13] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"];
/// VMs of each switch: a tap wants buffers of its own, for which a lab's switch has room so many times.
const EACH: u8 = 16;
/// So many workers share few cores.
const IDLE_SLEEP_US: u32 = 1000;
/// All are found within this time: thirteen switches and their NVA share one machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the NVA stands still.
const STILL: Duration = Duration::from_secs(1);

pub(super) fn run(options: &SwitchOptions, bins: &Binaries) -> Result<bool> {
    let options =
        SwitchOptions { hugepages: Hugepages::Never, idle_sleep_us: IDLE_SLEEP_US, ..options.clone() };
    let mut lab = Lab::start(&LabSpec::new(&SWITCHES, false, &options), bins)?;
    let result = started(&mut lab);
    if !matches!(result, Ok(true)) {
        lab.keep_logs();
    }
    result.with_context(|| format!("logs in {}", lab.dir.display()))
}

fn started(lab: &mut Lab) -> Result<bool> {
    let mut homes = BTreeMap::new();
    for (s, switch) in (0..).zip(SWITCHES) {
        for n in 0..EACH {
            let spec = numbered(s, n);
            homes.insert(spec.name.clone(), (switch.to_owned(), spec));
        }
        plug_all(lab, switch, s)?;
    }
    let before = homes.values().filter(|(_, spec)| spec.mac.0[5] % 2 == 0);
    for (n, (_, spec)) in before.enumerate() {
        let other = IpAddr::V4(Ipv4Addr::new(198, 51, 100, n as u8));
        lab.define_vm(&VmSpec { ips: vec![other], ..spec.clone() }, "")?;
    }
    signal(lab, Signal::SIGSTOP)?;
    let (lab_ref, all) = (&*lab, &homes);
    std::thread::scope(|scope| -> Result<()> {
        let define = scope.spawn(|| all.values().try_for_each(|(_, spec)| lab_ref.define_vm(spec, "")));
        for (s, switch) in (0..).zip(SWITCHES) {
            let namespace = lab_ref.nve(switch)?.namespace.clone();
            scope
                .spawn(move || speak(&namespace, s))
                .join()
                .map_err(|_| anyhow::anyhow!("a VM panicked"))??;
        }
        sleep(STILL);
        signal(lab_ref, Signal::SIGCONT)?;
        define.join().map_err(|_| anyhow::anyhow!("the operator panicked"))?
    })?;
    judge(lab, &homes)
}

/// Waits until the directory has all of them at home, and their ports are active.
fn judge(lab: &mut Lab, homes: &BTreeMap<String, (String, VmSpec)>) -> Result<bool> {
    let since = Instant::now();
    loop {
        let list = lab.nva.operator.list_vms(v1::ListVmsRequest::default())?.vms;
        let is_placed = |vm: &v1::VmRecord| {
            let at = vm.location.as_ref().map(|l| l.nve.as_str());
            homes.get(&vm.name).is_some_and(|(home, _)| at == Some(home))
        };
        let placed = list.iter().filter(|vm| is_placed(vm)).count();
        let mut active = 0;
        for switch in SWITCHES {
            let ports = lab.nve(switch)?.admin.ports()?;
            active += ports.iter().filter(|p| homes.contains_key(&p.name) && p.state == "activated").count();
        }
        let took = since.elapsed();
        if placed.min(active) == homes.len() {
            println!(
                "  {} VMs started and were defined while the NVA stood still: all active after {:.1} s",
                homes.len(),
                took.as_secs_f64()
            );
            return Ok(true);
        }
        if took > PATIENCE {
            println!(
                "  {} VMs started and were defined while the NVA stood still: {placed} located and {active} \
                 ports active after {PATIENCE:?}",
                homes.len()
            );
            let lost = list.iter().filter(|vm| !is_placed(vm)).map(|vm| vm.name.as_str()).take(8);
            println!("  not located, among others: {}", lost.collect::<Vec<_>>().join(", "));
            return Ok(false);
        }
        sleep(Duration::from_millis(50));
    }
}

fn numbered(switch: u8, n: u8) -> VmSpec {
    let ip = Ipv4Addr::new(10, 200, switch, n + 1);
    VmSpec {
        name: format!("m{switch}-{n}"),
        mac: Mac([0x02, 0x67, 0x77, 1, switch, n]),
        ips: vec![ip.into()],
        vn: Network::default(),
    }
}

/// The VMs' ports of a switch. Nobody takes their taps away: the VMs speak by the kernel's side of them.
fn plug_all(lab: &Lab, switch: &str, s: u8) -> Result<()> {
    let host = lab.nve(switch)?;
    for n in 0..EACH {
        let spec = numbered(s, n);
        host.admin.ask(Ask::AddPort(v1::AddPort {
            name: spec.name.clone(),
            devargs: format!("net_tap{},iface={}", 100 + u32::from(n), spec.name),
            vni: VNI,
            mac: spec.mac.to_u64(),
            ..Default::default()
        }))?;
    }
    // The kernel of the switch's namespace is all of its VMs: it answers for each, and says nothing by itself.
    let specs: Vec<VmSpec> = (0..EACH).map(|n| numbered(s, n)).collect();
    let quiet: Vec<String> = specs.iter().map(|v| format!("net/ipv6/conf/{}/disable_ipv6", v.name)).collect();
    let quiet: Vec<(&str, &str)> = quiet.iter().map(|key| (key.as_str(), "1")).collect();
    set_sysctls(&host.namespace, &quiet)?;
    let lines = specs.iter().flat_map(|VmSpec { name, mac, ips, .. }| {
        [format!("link set {name} address {mac} up"), format!("address add {}/32 dev {name}", ips[0])]
    });
    cmd::ip_batch(&host.namespace, &lines.collect::<Vec<_>>())
}

/// Each VM of a switch says once that it is there.
fn speak(namespace: &str, s: u8) -> Result<()> {
    // The namespace is this thread's.
    netns::enter(namespace)?;
    for n in 0..EACH {
        let VmSpec { name, mac, ips, .. } = numbered(s, n);
        announce::send(&Announcement { interface: name, mac: mac.to_string(), ips, rarp: false })?;
    }
    Ok(())
}
