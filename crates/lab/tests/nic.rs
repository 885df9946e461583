//! What `scripts/nic` refuses, over trees that stand in the places of /sys and /proc. That it does what it should
//! to a real kernel's cards is shown by the machine that `godwit-lab bare-metal` boots.
//!
//! Passes by where it is not run as root, as the script refuses to serve others.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const CARD: &str = "0000:03:00.0";
const OTHER: &str = "0000:03:00.1";

/// A machine with a card, eth7, in IOMMU group 9, which nobody uses.
struct Machine(TempDir);

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn link(target: &Path, at: &Path) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    symlink(target, at).unwrap();
}

impl Machine {
    fn new() -> Option<Machine> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("passed by: scripts/nic serves root only");
            return None;
        }
        let machine = Machine(tempfile::tempdir().unwrap());
        for driver in ["ixgbe", "vfio-pci"] {
            fs::create_dir_all(machine.sys("bus/pci/drivers").join(driver)).unwrap();
        }
        machine.card(CARD, "ixgbe", Some("eth7"));
        fs::create_dir_all(machine.path("proc")).unwrap();
        // What the script asks `ip`, and what it answers; orders it only takes.
        let ip = "#!/bin/sh\ncase \"$*\" in\n'route get '*) cat \"$FAKE/route\" ;;\n\
                  *'route show default') cat \"$FAKE/default\" ;;\n*'addr show'*) cat \"$FAKE/addresses\" ;;\n\
                  *) echo \"$*\" >>\"$FAKE/orders\" ;;\nesac 2>/dev/null\nexit 0\n";
        for (tool, text) in [("ip", ip), ("modprobe", "#!/bin/sh\nexit 0\n")] {
            let file = machine.path("bin").join(tool);
            write(&file, text);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sys(&self, name: &str) -> PathBuf {
        self.path("sys").join(name)
    }

    /// A device of the group, at that driver.
    fn card(&self, pci: &str, driver: &str, interface: Option<&str>) {
        let device = self.sys("bus/pci/devices").join(pci);
        write(&device.join("class"), "0x020000\n");
        write(&device.join("driver_override"), "");
        fs::create_dir_all(self.sys("bus/pci/drivers").join(driver)).unwrap();
        link(&self.sys("bus/pci/drivers").join(driver), &device.join("driver"));
        let group = self.sys("kernel/iommu_groups/9");
        fs::create_dir_all(group.join("devices").join(pci)).unwrap();
        link(&group, &device.join("iommu_group"));
        if let Some(interface) = interface {
            fs::create_dir_all(device.join("net").join(interface)).unwrap();
            write(&self.sys("class/net").join(interface).join("flags"), "0x1002\n");
        }
    }

    /// Runs the script; its exit code and all that it said.
    fn nic(&self, args: &[&str]) -> (i32, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/nic");
        // The script keeps the number of the shell that starts it, by which /proc has its environment.
        let start = "[ ! -e \"$FAKE/environ\" ] || { mkdir -p \"$FAKE/proc/$$\"; \
                     cp \"$FAKE/environ\" \"$FAKE/proc/$$/environ\"; }; exec sh \"$0\" \"$@\"";
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let out = Command::new("sh")
            .args(["-c", start])
            .arg(script)
            .args(args)
            .env("PATH", path)
            .env("FAKE", self.0.path())
            .env("GODWIT_NIC_SYS", self.path("sys"))
            .env("GODWIT_NIC_PROC", self.path("proc"))
            .output()
            .unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.code().unwrap(), said)
    }

    /// It refuses, says why, and has touched nothing.
    fn refuses(&self, args: &[&str], why: &str) {
        let (code, said) = self.nic(args);
        assert!(code == 1 && said.contains(why), "{args:?} ended with {code}: {said}");
        let device = self.sys("bus/pci/devices").join(CARD);
        assert_eq!(
            fs::read_to_string(device.join("driver_override")).unwrap().trim(),
            "",
            "{args:?}: {said}"
        );
        assert!(!self.path("orders").exists(), "{args:?} changed an interface");
    }

    /// It gets as far as handing the card over, which this kernel does not do.
    fn goes_ahead(&self, args: &[&str]) {
        let (_, said) = self.nic(args);
        assert!(said.contains("vfio-pci does not take it"), "{args:?}: {said}");
        assert!(fs::read_to_string(self.path("orders")).unwrap().contains("link set eth7 down"));
        fs::remove_file(self.path("orders")).unwrap();
    }
}

#[test]
fn a_card_that_nobody_uses_is_taken() {
    let Some(m) = Machine::new() else { return };
    m.goes_ahead(&["bind", CARD]);
    m.goes_ahead(&["bind", "03:00.0"]);
}

#[test]
fn the_card_that_one_is_logged_in_through_is_refused_even_by_force() {
    let Some(m) = Machine::new() else { return };
    write(&m.path("environ"), "HOME=/root\0SSH_CONNECTION=192.0.2.7 50000 192.0.2.1 22\0A=b\0");
    write(&m.path("route"), "192.0.2.7 dev eth7 src 192.0.2.1 uid 0\n    cache\n");
    m.refuses(&["bind", CARD], "you are logged in through eth7 (from 192.0.2.7)");
    m.refuses(&["bind", "--force", CARD], "you are logged in through eth7");
    let (code, said) = m.nic(&["status", CARD]);
    assert!(code == 1 && said.contains("in use: you are logged in through eth7"), "{said}");
    // By a VLAN over a bond of it, too.
    write(&m.path("route"), "192.0.2.7 dev bond0.5 src 192.0.2.1\n");
    m.goes_ahead(&["bind", CARD]);
    fs::create_dir_all(m.sys("class/net/bond0.5/lower_bond0")).unwrap();
    fs::create_dir_all(m.sys("class/net/bond0/lower_eth7")).unwrap();
    m.refuses(&["bind", "--force", CARD], "you are logged in through eth7");
    // Through another card.
    write(&m.path("route"), "192.0.2.7 dev eth0 src 192.0.2.1\n");
    m.goes_ahead(&["bind", CARD]);
}

#[test]
fn a_card_in_use_is_taken_by_force_only() {
    let Some(m) = Machine::new() else { return };
    let forced = |why: &str| {
        m.refuses(&["bind", CARD], why);
        m.goes_ahead(&["bind", "--force", CARD]);
    };
    write(&m.path("default"), "default via 192.0.2.254 dev eth7 proto dhcp\n");
    forced("eth7 carries the default route");
    write(&m.path("default"), "default via 192.0.2.254 dev eth0\n");
    write(&m.path("addresses"), "3: eth7 inet 192.0.2.9/24 brd 192.0.2.255 scope global eth7\n");
    forced("eth7 has addresses: 192.0.2.9/24");
    fs::remove_file(m.path("addresses")).unwrap();
    fs::create_dir_all(m.sys("class/net/bond0")).unwrap();
    link(&m.sys("class/net/bond0"), &m.sys("class/net/eth7/master"));
    forced("eth7 is part of bond0");
    fs::remove_file(m.sys("class/net/eth7/master")).unwrap();
    write(&m.sys("class/net/eth7/flags"), "0x1003\n");
    forced("eth7 is up");
}

#[test]
fn what_shares_the_iommu_group_must_not_be_the_kernels() {
    let Some(m) = Machine::new() else { return };
    // A bridge between buses is no hindrance, nor is what belongs to vfio already.
    m.card("0000:02:00.0", "pcieport", None);
    m.card("0000:03:00.2", "vfio-pci", None);
    m.goes_ahead(&["bind", CARD]);
    m.card(OTHER, "ixgbe", Some("eth8"));
    m.refuses(&["bind", CARD], "0000:03:00.1 (ixgbe)");
    m.refuses(&["bind", "--force", CARD], "shares its IOMMU group");
    let (code, said) = m.nic(&["status", CARD]);
    assert!(code == 1 && said.contains("hinders: 0000:03:00.1 (ixgbe) is in the same IOMMU group"), "{said}");
}

#[test]
fn without_an_iommu_the_danger_must_be_accepted() {
    let Some(m) = Machine::new() else { return };
    fs::remove_file(m.sys("bus/pci/devices").join(CARD).join("iommu_group")).unwrap();
    fs::remove_dir_all(m.sys("kernel/iommu_groups")).unwrap();
    m.refuses(&["bind", CARD], "no IOMMU is active");
    m.refuses(&["bind", "--force", CARD], "no IOMMU is active");
    let (code, said) = m.nic(&["status"]);
    assert!(code == 1 && said.contains("hinders: no IOMMU is active"), "{said}");
    m.refuses(&["bind", "--no-iommu", CARD], "this kernel has no mode without an IOMMU");
    let mode = m.sys("module/vfio/parameters/enable_unsafe_noiommu_mode");
    write(&mode, "N\n");
    m.goes_ahead(&["bind", "--no-iommu", CARD]);
    assert_eq!(fs::read_to_string(mode).unwrap(), "1\n");
}

#[test]
fn a_card_that_a_process_holds_is_not_given_back() {
    let Some(m) = Machine::new() else { return };
    let driver = m.sys("bus/pci/devices").join(CARD).join("driver");
    fs::remove_file(&driver).unwrap();
    link(&m.sys("bus/pci/drivers/vfio-pci"), &driver);
    link(Path::new("/dev/vfio/7"), &m.path("proc/4710/fd/3"));
    let (code, said) = m.nic(&["status", CARD]);
    assert!(code == 0 && said.contains("for the switch\n"), "another group's: {said}");
    link(Path::new("/dev/vfio/9"), &m.path("proc/4711/fd/33"));
    m.refuses(&["unbind", CARD], "used by process 4711");
    let (code, said) = m.nic(&["status", CARD]);
    assert!(code == 0 && said.contains("held by process 4711"), "{said}");
    let (code, said) = m.nic(&["bind", CARD]);
    assert!(code == 0 && said.contains("bound to vfio-pci already"), "{said}");
}
