//! A lab that was left standing: what is written down of it, and how it is taken up again.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use godwit_wire::Mac;
use serde::{Deserialize, Serialize};

use super::guests::{Placed, VhostPort};
use super::nve::{Binaries, Nva, Nve};
use super::process::Process;
use super::rpc::Rpc;
use super::vm::{Attachment, Network, Vm, VmSpec};
use super::{Keep, Lab, cleanup, management_ip};
use crate::guest::Guest;
use crate::guest::qemu::GuestSpec;

/// The file in the lab's directory.
const FILE: &str = "lab.json";

#[derive(Serialize, Deserialize)]
struct Record {
    nves: Vec<String>,
    vms: Vec<VmRecord>,
    guests: Vec<GuestRecord>,
    taps: u32,
}

#[derive(Serialize, Deserialize)]
struct VmRecord {
    name: String,
    mac: String,
    ips: Vec<IpAddr>,
    #[serde(default)]
    vn: Network,
    attached: Option<Attachment>,
    before: (u64, u64),
    silent: bool,
}

/// A guest of QEMU.
#[derive(Serialize, Deserialize)]
struct GuestRecord {
    machine: GuestSpec,
    generation: u32,
    mac: String,
    ips: Vec<IpAddr>,
    #[serde(default)]
    vn: Network,
    port: VhostPort,
}

fn vm_spec(name: &str, mac: &str, ips: Vec<IpAddr>, vn: Network) -> Result<VmSpec> {
    let mac: Mac = mac.parse().map_err(|e| anyhow::anyhow!("{mac}: {e}"))?;
    Ok(VmSpec { name: name.into(), mac, ips, vn })
}

impl Lab {
    /// Leaves the lab standing when this value is dropped: [`Lab::adopt`] takes it up again, and
    /// [`take_down`](super::take_down) takes it down.
    ///
    /// # Errors
    /// Where its record cannot be written; it stands all the same.
    pub fn keep(&mut self) -> Result<()> {
        self.keep = Keep::Everything;
        cleanup::forget(&self.id);
        self.nva.leave();
        self.nves.values_mut().for_each(|n| n.process.leave());
        self.vms.values_mut().for_each(|v| v.process.leave());
        self.guests.values_mut().for_each(|g| g.process.leave());
        let vms = self.vms.values().map(|vm| VmRecord {
            name: vm.spec.name.clone(),
            mac: vm.spec.mac.to_string(),
            ips: vm.spec.ips.clone(),
            vn: vm.spec.vn.clone(),
            attached: vm.attached.clone(),
            before: vm.before,
            silent: vm.silent,
        });
        let guests = self.guests.iter().filter_map(|(name, guest)| {
            let placed = self.placed.get(name)?;
            Some(GuestRecord {
                machine: guest.spec.clone(),
                generation: guest.generation(),
                mac: placed.spec.mac.to_string(),
                ips: placed.spec.ips.clone(),
                vn: placed.spec.vn.clone(),
                port: placed.port.clone(),
            })
        });
        let record = Record {
            nves: self.nves.keys().cloned().collect(),
            vms: vms.collect(),
            guests: guests.collect(),
            taps: self.taps,
        };
        let path = self.dir.join(FILE);
        fs::write(&path, serde_json::to_string_pretty(&record)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Takes up a lab that was left standing; it stays standing when this value is dropped.
    ///
    /// # Errors
    /// Where there is none of that id, or it was not left standing by a scenario.
    pub fn adopt(id: &str, bins: &Binaries) -> Result<Lab> {
        let labs = cleanup::labs();
        ensure!(labs.iter().any(|l| l == id), "there is no lab {id}; standing: {labs:?}");
        let dir = cleanup::directory(id);
        let text = fs::read_to_string(dir.join(FILE))
            .with_context(|| format!("lab {id} was not left standing by --keep"))?;
        let record: Record = serde_json::from_str(&text)?;
        let ns = |name: &str| format!("{}{name}", cleanup::prefix(id));
        let rpc = Rpc::start(&ns("nva"))?;
        let nva = Nva::adopt(&ns("nva"), management_ip(0), bins, &dir, &rpc)?;
        let nve = |name: &String| Ok((name.clone(), Nve::adopt(name, &ns(name), &dir, &rpc)?));
        let nves = record.nves.iter().map(nve).collect::<Result<_>>()?;
        let vm = |r: VmRecord| {
            let spec = vm_spec(&r.name, &r.mac, r.ips, r.vn)?;
            let process = Process::adopted(&format!("agent-{}", r.name), &dir);
            let mut vm = Vm::adopt(spec, &ns(&r.name), process, &dir)?;
            (vm.attached, vm.before, vm.silent) = (r.attached, r.before, r.silent);
            Ok((r.name, vm))
        };
        let vms = record.vms.into_iter().map(vm).collect::<Result<_>>()?;
        let (mut guests, mut placed) = (BTreeMap::new(), BTreeMap::new());
        for r in record.guests {
            let name = r.machine.name.clone();
            let spec = vm_spec(&name, &r.mac, r.ips, r.vn)?;
            let guest = Guest::adopt(r.machine, &dir, Some(&ns(&name)), r.generation)
                .with_context(|| format!("taking up guest {name}"))?;
            guests.insert(name.clone(), guest);
            placed.insert(name, Placed { spec, port: r.port });
        }
        Ok(Lab {
            id: id.into(),
            dir,
            bins: bins.clone(),
            vms,
            guests,
            placed,
            inner: BTreeMap::new(),
            nves,
            nva: Arc::new(nva),
            rpc,
            taps: record.taps,
            keep: Keep::Everything,
        })
    }
}
