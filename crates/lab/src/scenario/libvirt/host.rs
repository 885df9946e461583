//! A host of its own on this machine: a network and a mount namespace with a switch, libvirtd and Godwit's hook in
//! them. `/run`, `/etc` and libvirt's folders are its own; the programs are the machine's.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;

use crate::cmd;
use crate::lab::nve::{Locator, SwitchOptions, uplink_text};
use crate::lab::process::Process;
use crate::lab::{Lab, pki, topology};

/// The hook as it is installed: its files with their contents.
const HOOK: [(&str, &str); 6] = [
    ("qemu", include_str!("../../../../../contrib/libvirt/qemu")),
    ("godwit_libvirt/__init__.py", include_str!("../../../../../contrib/libvirt/godwit_libvirt/__init__.py")),
    ("godwit_libvirt/domain.py", include_str!("../../../../../contrib/libvirt/godwit_libvirt/domain.py")),
    ("godwit_libvirt/godwit.py", include_str!("../../../../../contrib/libvirt/godwit_libvirt/godwit.py")),
    ("godwit_libvirt/hook.py", include_str!("../../../../../contrib/libvirt/godwit_libvirt/hook.py")),
    ("godwit_libvirt/settings.py", include_str!("../../../../../contrib/libvirt/godwit_libvirt/settings.py")),
];
/// Enters the folders, with that of the host as its argument, and stays.
const ENTER: &str = "set -e
mount --make-rprivate /
mount --bind \"$1/run\" /run
mount --bind \"$1/etc\" /etc
for folder in lib cache log; do mount --bind \"$1/$folder\" /var/$folder/libvirt; done
touch /run/ready
exec sleep infinity";
/// A libvirtd for one program: nothing of it is confined, and nobody else gets to its socket.
const QEMU_CONF: &str = "user = \"root\"
group = \"root\"
security_driver = \"none\"
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = \"file\"
";
/// How long a host may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that runs.
pub struct Host {
    /// Its name, and its switch's.
    pub name: String,
    /// Where what it sees as `/run` is.
    run: PathBuf,
    /// Its address in the management network.
    pub management: String,
    // Keeps its mount namespace; ended last.
    _holder: Process,
    libvirtd: Process,
}

impl Host {
    /// Starts the host, its switch, the lab's number `n`, and its libvirtd.
    ///
    /// # Errors
    /// Where one of them does not come up.
    pub fn start(lab: &mut Lab, name: &str, n: u8, options: &SwitchOptions) -> Result<Host> {
        let (namespace, dir) = (lab.namespace(name), lab.dir.join(format!("host-{name}")));
        topology::add_namespace(&namespace)?;
        topology::connect_underlay(&lab.namespace("net"), &namespace, name)?;
        furnish(&dir, lab, name, n)?;
        let mut enter = cmd::in_namespace(&namespace, "unshare");
        enter.args(["--mount", "sh", "-c", ENTER, "sh"]).arg(&dir);
        let mut holder = Process::start(&format!("host-{name}"), enter, &lab.dir)?;
        wait_for(|| Ok(dir.join("run/ready").exists()), || holder.check())?;
        let inside = holder.id().context("the host has no process")?.to_string();
        let inside = ["--target", inside.as_str(), "--mount", "--"];

        // The switch makes its sockets where the host's QEMU looks for them.
        let switch = lab.dir.join(format!("godwit-on-{name}"));
        let line =
            format!("#!/bin/sh\nexec nsenter {} {} \"$@\"\n", inside.join(" "), lab.bins.godwit.display());
        write_program(&switch, &line)?;
        let godwit = std::mem::replace(&mut lab.bins.godwit, switch);
        let started =
            lab.add_switch(name, n, &uplink_text(Locator::numbered(n, true, false), options), options);
        lab.bins.godwit = godwit;
        started?;

        let mut libvirtd = cmd::in_namespace(&namespace, "nsenter");
        libvirtd.args(inside).arg("libvirtd");
        let libvirtd = Process::start(&format!("libvirtd-{name}"), libvirtd, &lab.dir)?;
        let management = format!("198.18.255.{}", n + 1);
        let mut host =
            Host { name: name.into(), run: dir.join("run"), management, _holder: holder, libvirtd };
        let uri = host.uri();
        let answers = || Ok(cmd::run("virsh", &["-c", &uri, "list"]).is_ok());
        wait_for(answers, || host.libvirtd.check()).context("libvirtd does not answer")?;
        Ok(host)
    }

    /// Where its libvirtd answers.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.run.join("libvirt/libvirt-sock").display())
    }

    /// A file of its `/run/lab` as the rest of the machine sees it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.join("lab").join(name)
    }

    /// Calls its libvirtd.
    ///
    /// # Errors
    /// What virsh says.
    pub fn virsh(&self, args: &[&str]) -> Result<String> {
        let uri = self.uri();
        let mut all = vec!["-q", "-c", uri.as_str()];
        all.extend(args);
        cmd::run("virsh", &all)
    }

    /// The state of a port of its switch; nothing where there is no such port.
    ///
    /// # Errors
    /// Where the switch does not answer.
    pub fn port(&self, lab: &Lab, name: &str) -> Result<Option<v1::PortInfo>> {
        match lab.nve(&self.name)?.admin.ask(Ask::ListPorts(v1::ListPorts {}))? {
            Answer::Ports(list) => Ok(list.ports.into_iter().find(|p| p.name == name)),
            other => bail!("unexpected answer of switch {}: {other:?}", self.name),
        }
    }

    /// Fails where its libvirtd has ended.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        self.libvirtd.check()
    }

    /// The end of its libvirtd's log, with what the hook said.
    pub fn log(&self) -> String {
        self.libvirtd.tail(40)
    }
}

/// What the host finds: its folders, its settings, the hook.
fn furnish(dir: &Path, lab: &Lab, name: &str, n: u8) -> Result<()> {
    for folder in ["run/lab", "run/lock", "lib", "cache", "log"] {
        let path = dir.join(folder);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    let etc = dir.join("etc");
    cmd::run("cp", &["-a".as_ref(), "/etc".as_ref(), etc.as_os_str()])?;
    // Networks of libvirt's own.
    let networks = etc.join("libvirt/qemu/networks/autostart");
    if networks.exists() {
        fs::remove_dir_all(&networks).with_context(|| format!("removing {}", networks.display()))?;
    }
    let write = |path: &str, text: &str| -> Result<()> {
        let path = etc.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&etc))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    // Two hosts of one machine would have the same, and libvirt moves no domain to its own host.
    let libvirtd =
        format!("auth_unix_rw = \"none\"\nhost_uuid = \"5d2b8f6e-7a43-4a5e-9c10-0000000000{n:02}\"\n");
    write("libvirt/libvirtd.conf", &libvirtd)?;
    write("libvirt/qemu.conf", QEMU_CONF)?;
    for (file, text) in HOOK {
        write(&format!("libvirt/hooks/{file}"), text)?;
    }
    fs::set_permissions(etc.join("libvirt/hooks/qemu"), Permissions::from_mode(0o755))?;
    let socket = lab.dir.join(format!("{name}.sock"));
    let conf = format!(
        "godwitctl = {}\nsocket = {}\nnva = {}\ndefine = yes\ntimeout_s = 60\n\
         prepare_s = 60\nsettle_s = 60\n",
        lab.bins.ctl.display(),
        socket.display(),
        lab.nva.url
    );
    write("godwit/libvirt.conf", &conf)?;
    if !pki::is_there(&lab.dir) {
        return Ok(());
    }
    // Where the hook's godwitctl looks for them.
    let (from, to) = (pki::operator_folder(&lab.dir), etc.join("godwit/operator"));
    fs::create_dir_all(&to)?;
    for file in fs::read_dir(&from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

/// Waits until it is so; `alive` says whether waiting still makes sense.
fn wait_for(mut so: impl FnMut() -> Result<bool>, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !so()? {
        alive()?;
        if Instant::now() > give_up {
            bail!("nothing within {PATIENCE:?}");
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
