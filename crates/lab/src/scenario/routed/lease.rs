//! A guest that knows nothing of its addresses and is told them by the gateway: by DHCP, by DHCP for IPv6 or by what
//! the gateway advertises. Its clients are busybox's udhcpc, Debian's dhclient, and its kernel.

use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Lease;
use super::look::sh;
use crate::guest::Guest;
use crate::guest::image::Image;
use crate::guest::kernel::Kernel;
use crate::guest::qemu::GuestSpec;
use crate::lab::Lab;
use crate::lab::topology::{GUEST, GUEST_MTU};
use crate::lab::vm::VmSpec;

/// How long a guest may take to be told its addresses.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the clients call, and where these write what they are told.
const SCRIPT: &str = include_str!("lease.sh");
const SCRIPT6: &str = include_str!("lease6.sh");
const LEASES: &str = "/tmp/leases";
const LEASES6: &str = "/tmp/leases6";
/// Debian's traceroute, and the client of DHCP for IPv6.
const TRACEROUTE: &str = "/usr/bin/traceroute.db";
const DHCLIENT: &str = "/usr/sbin/dhclient";

/// Starts v under QEMU at the first switch.
pub(super) fn start_guest(lab: &mut Lab, v: &VmSpec, managed: bool) -> Result<()> {
    let kernel = Kernel::get()?;
    let file = lab.dir.join("guest.cpio");
    let mut image = Image::new(&kernel, &lab.bins.lab)?;
    image.program(Path::new(TRACEROUTE), "/usr/bin/traceroute").context("install the package traceroute")?;
    image.file("/usr/bin/lease", 0o755, SCRIPT.as_bytes());
    if managed {
        image.program(Path::new(DHCLIENT), DHCLIENT).context("install the package isc-dhcp-client")?;
        image.file("/usr/bin/lease6", 0o755, SCRIPT6.as_bytes());
    }
    image.write(&file)?;
    let machine = GuestSpec::new(&v.name, &kernel.image, &file);
    lab.start_guest_by(v, machine, "a", 1, |guest, card| configure(guest, card, managed)).map(drop)
}

/// Lets the guest ask for its addresses.
fn configure(guest: &mut Guest, card: &str, managed: bool) -> Result<()> {
    for (key, value) in [("accept_ra", 1), ("router_solicitations", 5)] {
        guest.sh(&format!("echo {value} >/proc/sys/net/ipv6/conf/{card}/{key}"))?;
    }
    guest.sh(&format!("ip link set {card} mtu {GUEST_MTU} up"))?;
    guest.sh(&format!(
        "udhcpc -i {card} -t 20 -T 1 -n -s /usr/bin/lease -p /tmp/udhcpc.pid >/tmp/udhcpc.log 2>&1 \
         || {{ cat /tmp/udhcpc.log; exit 1; }}"
    ))?;
    if managed {
        guest.sh(&dhclient(card))?;
    }
    let started = Instant::now();
    while !guest.sh("ip -6 addr show")?.contains("scope global") {
        let name = &guest.spec.name;
        ensure!(
            started.elapsed() < PATIENCE,
            "guest {name} has no IPv6 address, and nobody advertised a prefix"
        );
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A line of shell that asks for an IPv6 address as if for the first time, and waits for the answer.
fn dhclient(card: &str) -> String {
    let (pid, file) = ("/tmp/dhclient6.pid", "/tmp/dhclient6.leases");
    format!(
        "test ! -e {pid} || kill $(cat {pid}); rm -f {file}; timeout 25 {DHCLIENT} -6 -1 -v -cf /dev/null \
         -sf /usr/bin/lease6 -lf {file} -pf {pid} {card} >/tmp/dhclient.log 2>&1 \
         || {{ cat /tmp/dhclient.log; exit 1; }}"
    )
}

/// Lets the guest ask for its leases again.
pub(super) fn renew(lab: &mut Lab, name: &str, managed: bool) -> Result<()> {
    sh(lab, name, "kill -USR1 $(cat /tmp/udhcpc.pid)")?;
    if managed {
        sh(lab, name, &dhclient(GUEST))?;
    }
    Ok(())
}

impl Lease {
    /// Waits for the guest's lease of this kind, and compares it with the record, the gateway's address, and what was
    /// told before.
    pub(super) fn look(&mut self, lab: &mut Lab, (v, gateway): (&VmSpec, IpAddr), kind: &str) -> Result<()> {
        let started = Instant::now();
        let told = loop {
            let told = sh(lab, &v.name, &format!("cat {LEASES}"))?;
            if told.lines().count() > self.leases.len() || started.elapsed() > PATIENCE {
                break told;
            }
            sleep(Duration::from_millis(100));
        };
        let line = told.lines().last().unwrap_or_default();
        let (said, what) = line.split_once(' ').unwrap_or_default();
        let renewed = told.lines().count() == self.leases.len() + 1 && said == kind;
        self.leases.push(what.to_owned());
        let told6 = sh(lab, &v.name, &format!("cat {LEASES6} 2>/dev/null || true"))?;
        self.leases6 = told6.lines().map(str::to_owned).collect();
        self.addresses.push(global_addresses(lab, &v.name)?);
        let right = format!("{} {gateway} ", v.address(false, 0).ip());
        let right6 = v.address(true, 0).ip().to_string();
        let lasts = self.leases.iter().all(|l| *l == self.leases[0]) && what.starts_with(&right);
        let lasts6 = self.addresses.iter().all(|all| all.split('/').next() == Some(&right6));
        let asked6 = self.leases6.is_empty() || self.leases6.len() == self.leases.len();
        let told_right = self.leases6.iter().all(|ip| *ip == right6);
        self.kept &= renewed && lasts && lasts6 && asked6 && told_right;
        Ok(())
    }
}

/// A guest's IPv6 addresses, without how long they live.
fn global_addresses(lab: &mut Lab, vm: &str) -> Result<String> {
    let all = sh(lab, vm, "ip -6 addr show scope global")?;
    let of = |l: &str| l.trim().strip_prefix("inet6 ").and_then(|l| l.split(' ').next().map(str::to_owned));
    Ok(all.lines().filter_map(of).collect::<Vec<_>>().join(" "))
}
