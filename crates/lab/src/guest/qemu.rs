//! QEMU's command line and process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use godwit_wire::Mac;
use serde::{Deserialize, Serialize};

use crate::cmd;

/// The program; packages of other systems call it the same.
pub const QEMU: &str = "qemu-system-x86_64";

/// What QEMU calls the file that a guest's memory is in.
pub const MEMORY_FILE: &str = "memory-backend-memfd";

/// A machine to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GuestSpec {
    /// Its name; names its files and its process.
    pub name: String,
    /// Memory in MiB. Debian's kernel, the image and a little traffic fit in 192.
    pub memory_mb: u32,
    /// Processors.
    pub cpus: u32,
    /// The kernel.
    pub kernel: PathBuf,
    /// The root file system, by [`super::image::Image::write`].
    pub image: PathBuf,
    /// Added to the kernel's command line.
    pub kernel_args: String,
    /// Added to `-machine q35`.
    pub machine: String,
    /// Network cards, `eth0` first.
    pub nics: Vec<Nic>,
    /// Further arguments of QEMU, a word each.
    pub extra: Vec<String>,
}

impl GuestSpec {
    /// One processor, 192 MiB, no network card.
    pub fn new(name: &str, kernel: &Path, image: &Path) -> GuestSpec {
        GuestSpec {
            name: name.into(),
            memory_mb: 192,
            cpus: 1,
            kernel: kernel.into(),
            image: image.into(),
            kernel_args: String::new(),
            machine: String::new(),
            nics: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// A network card of virtio on a vhost-user port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nic {
    /// The port's socket. The switch listens there, unless `listen`.
    pub socket: PathBuf,
    /// QEMU listens and the switch connects.
    pub listen: bool,
    /// The card's address.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// Queue pairs.
    pub queues: u16,
    /// The guest may hand over checksums to be filled in and segments to be cut, where the switch
    /// offers that too. Off takes both from the guest's driver, whatever the switch offers.
    pub offloads: bool,
    /// Further properties of the device: `host_mtu=9000,mrg_rxbuf=off`.
    pub properties: String,
}

impl Nic {
    /// One queue pair at a socket of the switch, offloads as the switch has them.
    pub fn new(socket: &Path, mac: Mac) -> Nic {
        Nic {
            socket: socket.into(),
            listen: false,
            mac,
            queues: 1,
            offloads: true,
            properties: String::new(),
        }
    }

    fn arguments(&self, n: usize) -> [String; 6] {
        let (mac, queues, socket) = (self.mac, self.queues, self.socket.display());
        let listen = if self.listen { ",server=on" } else { "" };
        // QEMU crashes when vhost starts under TCG with MSI-X: no vectors, no MSI-X.
        // An emulated guest does not get to its frames for half a second at times: QEMU's longest ring waits for it.
        let mut device =
            format!("virtio-net-pci,netdev=net{n},mac={mac},romfile=,vectors=0,rx_queue_size=1024");
        if queues > 1 {
            device += ",mq=on";
        }
        if !self.offloads {
            device += ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off";
            device += ",guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";
        }
        if !self.properties.is_empty() {
            device = format!("{device},{}", self.properties);
        }
        [
            "-chardev".into(),
            format!("socket,id=port{n},path={socket}{listen}"),
            "-netdev".into(),
            format!("vhost-user,id=net{n},chardev=port{n},queues={queues}"),
            "-device".into(),
            device,
        ]
    }
}

/// A MAC address as text.
mod mac_text {
    use godwit_wire::Mac;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(mac: &Mac, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(mac)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|e| D::Error::custom(format!("{text}: {e}")))
    }
}

/// The files of one QEMU; another one of the same guest, after a migration, has others.
#[derive(Clone, Debug)]
pub struct Files {
    /// The control socket.
    pub qmp: PathBuf,
    /// The agent's line.
    pub agent: PathBuf,
    /// What the guest's kernel prints.
    pub console: PathBuf,
    /// Where a migration comes in.
    pub migration: PathBuf,
}

impl Files {
    /// In `dir`, for the `generation`th QEMU of the guest.
    pub fn new(dir: &Path, name: &str, generation: u32) -> Files {
        let file = |kind: &str| dir.join(format!("{name}-{generation}.{kind}"));
        Files {
            qmp: file("qmp"),
            agent: file("agent"),
            console: file("console"),
            migration: file("migration"),
        }
    }
}

/// Makes sure that QEMU is there.
///
/// # Errors
/// Where it is not; says which package has it.
pub fn ensure_present() -> Result<()> {
    ensure!(cmd::exists(QEMU), "{QEMU} is missing: install the package qemu-system-x86");
    Ok(())
}

/// The command that starts the guest, waiting for a migration where `incoming`.
///
/// # Errors
/// Where a path cannot stand in QEMU's options.
pub fn command(spec: &GuestSpec, files: &Files, namespace: Option<&str>, incoming: bool) -> Result<Command> {
    let nic_paths = spec.nics.iter().map(|n| &n.socket);
    for path in nic_paths.chain([&files.qmp, &files.agent, &files.console, &files.migration]) {
        if path.to_string_lossy().contains(',') {
            bail!("{}: QEMU's options cannot have a comma in a path", path.display());
        }
    }
    let mut command = match namespace {
        Some(namespace) => cmd::in_namespace(namespace, QEMU),
        None => Command::new(QEMU),
    };
    command.args(arguments(spec, files));
    if incoming {
        command.arg("-incoming").arg(format!("unix:{}", files.migration.display()));
    }
    Ok(command)
}

/// A guest's memory in KiB: the last two pages of its MiB are missing.
///
/// Before version 9.0 QEMU's search for pages that an emulated processor has written takes a short cut where a block's
/// length divides by 256 KiB (64 pages), and then does not tell the processor to report the next write to them:
/// whatever it writes to such a page until its migration ends stays behind, and the guest finds its old contents. A
/// length that does not divide takes the way that does.
fn memory_kib(memory_mb: u32) -> u32 {
    memory_mb * 1024 - 8
}

fn arguments(spec: &GuestSpec, files: &Files) -> Vec<OsString> {
    let GuestSpec { name, memory_mb, cpus, kernel_args, machine, .. } = spec;
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |text: String| words.extend(text.split(' ').map(OsString::from));
    add(format!("-name {name} -nodefaults -no-user-config -display none -vga none -no-reboot"));
    // One thread a processor; -cpu max is all that TCG emulates: AVX2, no AVX-512.
    let memory = memory_kib(*memory_mb);
    add(format!("-accel tcg,thread=multi -cpu max -smp {cpus} -m {memory}K"));
    let machine = if machine.is_empty() { String::new() } else { format!(",{machine}") };
    add(format!("-machine q35,memory-backend=mem{machine}"));
    // The switch reads and writes the guest's memory.
    add(format!("-object memory-backend-memfd,id=mem,size={memory}K,share=on"));
    add(format!("-serial file:{}", files.console.display()));
    add(format!("-qmp unix:{},server=on,wait=off", files.qmp.display()));
    add("-device virtio-serial-pci,vectors=0".into());
    add(format!("-chardev socket,id=agent,path={},server=on,wait=off", files.agent.display()));
    add("-device virtserialport,chardev=agent,name=agent".into());
    for (n, nic) in spec.nics.iter().enumerate() {
        words.extend(nic.arguments(n).map(OsString::from));
    }
    words.extend(spec.extra.iter().map(OsString::from));
    words.extend(["-kernel".into(), spec.kernel.clone().into(), "-initrd".into(), spec.image.clone().into()]);
    words.push("-append".into());
    // A kernel that errs panics, and a panic ends the guest, and with -no-reboot QEMU: no wait for nothing. Its check
    // of the timer counts its own instructions, and gives up where a busy machine holds QEMU up.
    // What guards against a real processor's leaks is only more to translate for an emulated one.
    words.push(
        format!(
            "console=ttyS0 loglevel=4 oops=panic panic=-1 tsc=reliable no_timer_check mitigations=off {kernel_args}"
        )
        .trim_end()
        .into(),
    );
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_memory_is_of_a_length_that_qemu_migrates_whole() {
        let (mut spec, files) =
            (GuestSpec::new("v", Path::new("/k"), Path::new("/i")), Files::new(Path::new("/t"), "v", 0));
        for mb in [64, 192, 1024] {
            spec.memory_mb = mb;
            let line = format!("{:?}", command(&spec, &files, None, false).unwrap());
            assert!(line.contains(&format!("size={}K,share=on", mb * 1024 - 8)), "{line}");
            assert_ne!(memory_kib(mb) % 256, 0);
        }
    }

    #[test]
    fn a_path_with_a_comma_is_refused_and_others_are_not() {
        let mut spec = GuestSpec::new("v", Path::new("/k"), Path::new("/i"));
        let files = Files::new(Path::new("/tmp/lab"), "v", 0);
        spec.nics.push(Nic::new(Path::new("/tmp/a.sock"), Mac([2, 0, 0, 0, 0, 1])));
        let line = format!("{:?}", command(&spec, &files, None, true).unwrap());
        assert!(
            line.contains("unix:/tmp/lab/v-0.migration") && line.contains("mac=02:00:00:00:00:01"),
            "{line}"
        );
        assert!(!line.contains("host_tso4=off"));
        spec.nics[0].offloads = false;
        assert!(format!("{:?}", command(&spec, &files, None, false).unwrap()).contains("host_tso4=off"));
        spec.nics[0].socket = "/tmp/a,b.sock".into();
        assert!(command(&spec, &files, None, false).unwrap_err().to_string().contains("comma"));
    }
}
