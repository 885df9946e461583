//! A lab: an underlay, switches as processes of their own, an NVA and VMs, all in network
//! namespaces, with nothing on the machine's own interfaces.
//!
//! Everything carries the lab's random id. It all goes when the [`Lab`] is dropped, unless it is
//! told to [stay](Lab::keep).

pub mod cleanup;
pub mod delay;
pub mod echo;
pub mod guests;
pub mod nve;
pub mod pki;
pub mod process;
pub mod rpc;
mod spec;
mod standing;
pub mod topology;
pub mod vm;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_api::convert::ip_bytes;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;

use self::delay::Delay;
use self::guests::Placed;
use self::nve::{Binaries, Locator, NVA_PORT, Nva, Nve, SwitchOptions};
use self::rpc::Rpc;
use self::vm::{Attachment, Vm, VmSpec};
use crate::guest::Guest;

/// The tenant's virtual network.
pub const VNI: u32 = 100;
/// Its name in the directory.
pub const VN: &str = "blue";
/// The NVA on the management network; NVE number n is n above it.
const MANAGEMENT_NET: [u8; 3] = [198, 18, 255];
/// Seconds for which the operator's command waits for an answer.
pub const CTL_PATIENCE_S: &str = "60";
/// How long a VM may take to be known at its NVE after it announced itself.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);

/// What a lab is made of.
#[derive(Clone, Debug)]
pub struct LabSpec {
    /// Switches, in order: the first has locator number 1.
    pub nves: Vec<String>,
    /// They have IPv4 locators.
    pub outer_v4: bool,
    /// They have IPv6 locators.
    pub outer_v6: bool,
    /// How they are configured.
    pub options: SwitchOptions,
    /// What lies between each of them and the NVA.
    pub nva_delay: Option<Delay>,
}

impl LabSpec {
    /// Switches `names` with locators of one family.
    pub fn new(names: &[&str], outer_v6: bool, options: &SwitchOptions) -> LabSpec {
        LabSpec {
            nves: names.iter().map(|n| (*n).to_owned()).collect(),
            outer_v4: !outer_v6,
            outer_v6,
            options: options.clone(),
            nva_delay: None,
        }
    }
}

/// A lab that runs.
pub struct Lab {
    /// Four hexadecimal digits.
    pub id: String,
    /// Configurations, sockets, data and logs.
    pub dir: PathBuf,
    /// The programs under test.
    pub bins: Binaries,
    /// VMs by name.
    pub vms: BTreeMap<String, Vm>,
    /// Guests of QEMU by name.
    pub guests: BTreeMap<String, Guest>,
    /// Where those guests are.
    pub placed: BTreeMap<String, Placed>,
    /// VMs within VMs, by the outer one: they stand still when it does.
    pub inner: BTreeMap<String, Vec<String>>,
    /// Switches by name.
    pub nves: BTreeMap<String, Nve>,
    /// The directory.
    pub nva: Arc<Nva>,
    rpc: Rpc,
    taps: u32,
    keep: Keep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Logs,
    Everything,
}

/// What is there before the lab's own value: whatever fails in between, it goes.
struct Site {
    id: String,
    armed: bool,
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.armed {
            cleanup::forget(&self.id);
            cleanup::sweep(&self.id, true);
        }
    }
}

impl Lab {
    /// Builds a lab and waits until all its switches are connected to its NVA.
    ///
    /// # Errors
    /// Where something is missing or does not come up; what was made is taken down, the logs stay.
    pub fn start(spec: &LabSpec, bins: &Binaries) -> Result<Lab> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces: run it as root");
        let mut site = Site { id: cleanup::claim()?, armed: true };
        let dir = cleanup::directory(&site.id);
        Lab::build(spec, bins, &mut site).with_context(|| format!("logs are in {}", dir.display()))
    }

    fn build(spec: &LabSpec, bins: &Binaries, site: &mut Site) -> Result<Lab> {
        let id = site.id.clone();
        let dir = cleanup::directory(&id);
        let ns = |name: &str| format!("{}{name}", cleanup::prefix(&id));
        let net = ns("net");
        topology::build_network(&net)?;
        topology::add_namespace(&ns("nva"))?;
        topology::connect_management(&net, &ns("nva"), "nva", management_ip(0))?;
        let rpc = Rpc::start(&ns("nva"))?;
        // Short lives, so that records are asked for again and again while traffic runs (R40).
        if !spec.options.plain {
            pki::make(&dir, management_ip(0))?;
        }
        let flags: &[&str] = if spec.options.pull.is_empty() { &[] } else { &["--pos-life-ms", "3000"] };
        let nva = Nva::start(&ns("nva"), management_ip(0), bins, &dir, &rpc, flags)?;
        nva.operator.create_vn(v1::Vn { name: VN.into(), vni: VNI, ..Default::default() })?;

        let url = match spec.nva_delay {
            Some(delay) => nva.url_of(delay::serve(&ns("nva"), management_ip(0), NVA_PORT, delay)?),
            None => nva.url.clone(),
        };

        let mut nves = BTreeMap::new();
        for (name, number) in spec.nves.iter().zip(1u8..) {
            let namespace = ns(name);
            topology::add_namespace(&namespace)?;
            topology::connect_underlay(&net, &namespace, name)?;
            topology::connect_management(&net, &namespace, name, management_ip(number))?;
            let locator = Locator::numbered(number, spec.outer_v4, spec.outer_v6);
            let place = (dir.as_path(), &rpc, url.as_str());
            let uplink = nve::uplink_text(locator, &spec.options);
            nves.insert(name.clone(), Nve::start(name, &namespace, &uplink, &spec.options, bins, place)?);
        }
        for nve in nves.values_mut() {
            nve.wait_ready()?;
        }
        site.armed = false;
        Ok(Lab {
            id,
            dir,
            bins: bins.clone(),
            vms: BTreeMap::new(),
            guests: BTreeMap::new(),
            placed: BTreeMap::new(),
            inner: BTreeMap::new(),
            nves,
            nva: Arc::new(nva),
            rpc,
            taps: 0,
            keep: Keep::Nothing,
        })
    }

    /// Adds a switch whose namespace is there with what its `uplinks` need, `[[uplink]]` tables of its configuration,
    /// and waits until it is connected to the NVA.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn add_switch(
        &mut self,
        name: &str,
        number: u8,
        uplinks: &str,
        options: &SwitchOptions,
    ) -> Result<()> {
        let namespace = self.namespace(name);
        topology::connect_management(&self.namespace("net"), &namespace, name, management_ip(number))?;
        let place = (self.dir.as_path(), &self.rpc, self.nva.url.as_str());
        let mut nve = Nve::start(name, &namespace, uplinks, options, &self.bins, place)?;
        let ready = nve.wait_ready();
        self.nves.insert(name.into(), nve);
        ready
    }

    /// The lab's namespace of this short name.
    pub fn namespace(&self, name: &str) -> String {
        format!("{}{name}", cleanup::prefix(&self.id))
    }

    /// The thread for calls, to make further clients.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// A switch by name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn nve(&self, name: &str) -> Result<&Nve> {
        self.nves.get(name).with_context(|| format!("the lab has no switch {name}"))
    }

    /// A VM by name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn vm(&mut self, name: &str) -> Result<&mut Vm> {
        self.vms.get_mut(name).with_context(|| format!("the lab has no VM {name}"))
    }

    /// Defines a VM at the NVA, starts it at a switch, and waits until the directory has it there.
    ///
    /// # Errors
    /// Where any step fails.
    pub fn start_vm(&mut self, spec: VmSpec, nve: &str) -> Result<()> {
        self.define_vm(&spec, "")?;
        self.start_defined(spec, nve)
    }

    /// The same for a VM of which the directory has no address.
    ///
    /// # Errors
    /// Where any step fails.
    pub fn start_unrecorded(&mut self, spec: VmSpec, nve: &str) -> Result<()> {
        self.define_vm(&VmSpec { ips: Vec::new(), ..spec.clone() }, "")?;
        self.start_defined(spec, nve)
    }

    fn start_defined(&mut self, spec: VmSpec, nve: &str) -> Result<()> {
        let name = spec.name.clone();
        let vm = Vm::start(spec, &self.namespace(&name), &self.bins, &self.dir)?;
        self.vms.insert(name.clone(), vm);
        let attachment = self.plug(&name, nve)?;
        self.vm(&name)?.attach(&attachment)?;
        self.wait_located(&name, nve, |lab| lab.vm(&name)?.announce(false))
    }

    /// Defines a VM at the NVA; pinned to an NVE without a session where `pinned` names one.
    ///
    /// # Errors
    /// Where the NVA refuses.
    pub fn define_vm(&self, spec: &VmSpec, pinned: &str) -> Result<()> {
        self.define(spec, pinned, false)
    }

    /// Defines a VM at the NVA, or changes its definition, as a router or not.
    ///
    /// # Errors
    /// Where the NVA refuses.
    pub fn define_router(&self, spec: &VmSpec, router: bool) -> Result<()> {
        self.define(spec, "", router)
    }

    fn define(&self, spec: &VmSpec, pinned: &str, router: bool) -> Result<()> {
        let bytes =
            |v6: bool| spec.ips.iter().filter(|ip| ip.is_ipv6() == v6).copied().map(ip_bytes).collect();
        let request = v1::DefineVmRequest {
            name: spec.name.clone(),
            vn: spec.vn.name.clone(),
            mac: spec.mac.to_u64(),
            ipv4: bytes(false),
            ipv6: bytes(true),
            router,
            pinned_nve: pinned.into(),
            policy: String::new(),
            allowed: None,
        };
        self.nva.operator.define_vm(request).map(drop)
    }

    /// Adds a port for the VM at a switch and brings the tap behind it into the VM, unattached.
    ///
    /// # Errors
    /// Where the switch refuses or the tap does not appear.
    pub fn plug(&mut self, vm: &str, nve: &str) -> Result<Attachment> {
        self.taps += 1;
        let number = self.taps;
        let attachment =
            Attachment { nve: nve.into(), port: format!("{vm}-{number}"), tap: format!("t{number}{vm}") };
        let (namespace, mac, vni) = {
            let vm = self.vm(vm)?;
            (vm.namespace.clone(), vm.spec.mac.to_u64(), vm.spec.vn.vni)
        };
        let host = self.nve(nve)?;
        host.admin.ask(Ask::AddPort(v1::AddPort {
            name: attachment.port.clone(),
            devargs: format!("net_tap{number},iface={}", attachment.tap),
            vni,
            mac,
            ..Default::default()
        }))?;
        topology::hand_over_tap(&attachment.tap, &host.namespace, &namespace)?;
        Ok(attachment)
    }

    /// Removes a port; the tap behind it goes with it.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub fn unplug(&self, attachment: &Attachment) -> Result<()> {
        let name = attachment.port.clone();
        let host = self.nve(&attachment.nve)?;
        host.admin.ask(Ask::RemovePort(v1::RemovePort { name }))?;
        topology::forget_tap(&attachment.tap, &host.namespace)
    }

    /// Announces a VM and waits until the directory has it at this switch; repeats its announcement meanwhile, as
    /// guests and hypervisors do.
    fn wait_located(
        &mut self,
        vm: &str,
        nve: &str,
        mut announce: impl FnMut(&mut Lab) -> Result<()>,
    ) -> Result<()> {
        announce(self)?;
        let started = Instant::now();
        let mut announcements = 1;
        loop {
            let record = self.nva.operator.show_vm(v1::VmName { name: vm.into() })?;
            let place = record.location.map(|l| l.nve).unwrap_or_default();
            if place == nve {
                return Ok(());
            }
            if started.elapsed() > CLAIM_PATIENCE {
                let log = self.nve(nve)?.process.tail(15);
                bail!("VM {vm} announced itself at {nve} but the directory has it at {place:?}\n{log}");
            }
            if started.elapsed() > Duration::from_millis(500) * announcements {
                announcements += 1;
                announce(self)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What `godwitctl` prints when an operator calls it beside the NVA with these arguments.
    ///
    /// # Errors
    /// Where it fails; the error has what it said.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let to_nva = self.nva.ctl_flags();
        let mut all = vec!["--timeout", CTL_PATIENCE_S];
        all.extend(to_nva.iter().map(String::as_str));
        all.extend(args);
        crate::cmd::run_in(&self.namespace("nva"), &self.bins.ctl.to_string_lossy(), &all)
    }

    /// Fails where one of the lab's programs has ended by itself.
    ///
    /// # Errors
    /// See above; the error has the end of its log.
    pub fn check_processes(&mut self) -> Result<()> {
        self.nves.values_mut().map(|n| &mut n.process).try_for_each(process::Process::check)?;
        self.guests.values_mut().map(|g| &mut g.process).try_for_each(process::Process::check)?;
        self.vms.values_mut().map(|v| &mut v.process).try_for_each(process::Process::check)
    }

    /// Leaves the directory with the logs when this value is dropped.
    pub fn keep_logs(&mut self) {
        if self.keep == Keep::Nothing {
            self.keep = Keep::Logs;
        }
    }

    /// The log files of all processes.
    pub fn logs(&self) -> Vec<PathBuf> {
        let of = |p: &process::Process| p.log().to_owned();
        let mut all: Vec<PathBuf> = self.nves.values().map(|n| of(&n.process)).collect();
        all.push(self.dir.join("godwit-nva.log"));
        all.extend(self.vms.values().map(|v| of(&v.process)));
        all.extend(self.guests.values().flat_map(|g| [of(&g.process), g.files.console.clone()]));
        all
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep == Keep::Everything {
            return;
        }
        cleanup::forget(&self.id);
        // Everything lives in the lab's namespaces: one sweep ends all processes at the same time.
        cleanup::sweep(&self.id, self.keep == Keep::Logs || std::thread::panicking());
    }
}

/// Takes down a lab that was left standing.
///
/// # Errors
/// Where there is none of that id.
pub fn take_down(id: &str) -> Result<()> {
    let labs = cleanup::labs();
    ensure!(labs.iter().any(|l| l == id), "there is no lab {id}; standing: {labs:?}");
    cleanup::sweep(id, false);
    Ok(())
}

fn management_ip(number: u8) -> IpAddr {
    let [a, b, c] = MANAGEMENT_NET;
    Ipv4Addr::new(a, b, c, number + 1).into()
}
