//! The guests' root file system: busybox, kernel modules, the lab's agent, and what else a test wants.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::cpio::{self, Node};
use super::kernel::Kernel;
use crate::cmd;

/// What every guest loads: PCI devices of virtio, its network and its serial ports.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_net", "virtio_console"];
/// The agent in the guest.
const AGENT: &str = "/usr/bin/godwit-agent";
const INIT: &str = include_str!("init.sh");

/// A root file system in the making.
#[derive(Clone, Debug)]
pub struct Image {
    nodes: BTreeMap<String, Node>,
    modules: Vec<String>,
    kernel: Kernel,
}

impl Image {
    /// One with a shell, the usual tools, virtio's drivers and the agent, which `lab` is the program of.
    ///
    /// # Errors
    /// Where the kernel, busybox or a library is missing; says which package has it.
    pub fn new(kernel: &Kernel, lab: &Path) -> Result<Image> {
        let mut image = Image { nodes: BTreeMap::new(), modules: Vec::new(), kernel: kernel.clone() };
        for (link, to) in
            [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
        {
            image.folder(to);
            image.nodes.insert(link.into(), Node::Link(to.into()));
        }
        for folder in ["proc", "sys", "dev", "tmp", "run", "etc", "root", "var"] {
            image.folder(folder);
        }
        image.nodes.insert("var/run".into(), Node::Link("/run".into()));
        // The kernel opens it for the first program before anything is mounted.
        image.nodes.insert("dev/console".into(), Node::Device { major: 5, minor: 1 });
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|p| p.is_file());
        let busybox = busybox.context("busybox is missing: install the package busybox-static")?;
        image.program(busybox, "/usr/bin/busybox")?;
        for applet in cmd::run(&busybox.to_string_lossy(), &["--list"])?.split_whitespace() {
            image.nodes.entry(format!("usr/bin/{applet}")).or_insert(Node::Link("busybox".into()));
        }
        image.agent(lab)?;
        image.file("/init", 0o755, INIT.as_bytes());
        image.load(&MODULES)?;
        Ok(image)
    }

    /// The kernel that the image's modules are of.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Modules that the guest loads when it starts, each maybe with parameters: `vfio_iommu_type1 a=1`.
    ///
    /// # Errors
    /// Where the kernel has no such module.
    pub fn load(&mut self, modules: &[&str]) -> Result<()> {
        for asked in modules {
            let (name, parameters) = asked.split_once(' ').unwrap_or((asked, ""));
            let files = self.kernel.modules(&[name])?;
            for (i, file) in files.iter().enumerate() {
                let short = file.file_name().unwrap_or_default().to_string_lossy();
                let own = if i + 1 == files.len() { parameters } else { "" };
                let line = format!("/lib/modules/{short} {own}");
                let loaded = line.split(' ').next().unwrap_or_default().to_owned() + " ";
                if !self.modules.iter().any(|m| m.starts_with(&loaded)) {
                    self.modules.push(line);
                }
                self.host_file(file, &format!("/lib/modules/{short}"))?;
            }
        }
        Ok(())
    }

    /// A file with this content.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = self.place(Path::new(path));
        self.nodes.insert(path, Node::File { mode, content: content.to_vec() });
    }

    /// A copy of the machine's file `host`.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn host_file(&mut self, host: &Path, path: &str) -> Result<()> {
        let read = || Ok::<_, std::io::Error>((fs::metadata(host)?.permissions().mode(), fs::read(host)?));
        let (mode, content) = read().with_context(|| format!("for the guest: {}", host.display()))?;
        self.file(path, mode & 0o777, &content);
        Ok(())
    }

    /// The lab's program without what debuggers need, which is most of a development build and more than
    /// a guest's memory holds.
    fn agent(&mut self, lab: &Path) -> Result<()> {
        self.libraries_of(lab)?;
        // It goes with this value, however the function ends.
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let bare = folder.path().join("agent");
        let args = ["-o".as_ref(), bare.as_os_str(), lab.as_os_str()];
        // A machine that only runs the lab has no binutils, and programs that are small already.
        let stripped = cmd::exists("strip") && cmd::run("strip", &args).is_ok();
        self.host_file(if stripped { &bare } else { lab }, AGENT)
    }

    /// A program of the machine, with the shared libraries that it needs.
    ///
    /// # Errors
    /// Where the program or one of its libraries is missing.
    pub fn program(&mut self, host: &Path, path: &str) -> Result<()> {
        self.host_file(host, path)?;
        self.libraries_of(host)
    }

    /// The machine's library at its own path, links as links, so that no library is there twice under
    /// two names; with what it needs.
    ///
    /// # Errors
    /// Where it, or a library that it needs, is missing.
    pub fn library(&mut self, host: &Path) -> Result<()> {
        self.with_links(host)?;
        self.libraries_of(host)
    }

    /// DPDK's drivers of these names (`net_virtio`, `bus_pci`), in the folder where the DPDK that `program`
    /// is linked with looks for them.
    ///
    /// # Errors
    /// Where the program is not linked with DPDK, or a driver is missing.
    pub fn dpdk_drivers(&mut self, program: &Path, names: &[&str]) -> Result<()> {
        let listing = cmd::run("ldd", &[program])?;
        let eal = listing.split_whitespace().find(|w| w.starts_with('/') && w.contains("librte_eal.so"));
        let eal = eal.with_context(|| format!("{} is not linked with DPDK", program.display()))?;
        let folder = Path::new(eal).parent().unwrap_or(Path::new("/")).join("dpdk");
        let pmds =
            fs::read_dir(&folder).with_context(|| format!("DPDK's drivers in {}", folder.display()))?;
        let pmds = pmds.flatten().map(|e| e.path()).find(|p| p.join("librte_bus_pci.so").exists());
        let pmds = pmds.with_context(|| format!("no drivers below {}: install `dpdk`", folder.display()))?;
        for name in names {
            // Loaded as `.so`, and by each other under the name that the link leads to.
            self.library(&pmds.join(format!("librte_{name}.so")))?;
        }
        Ok(())
    }

    fn libraries_of(&mut self, host: &Path) -> Result<()> {
        // It fails for a program without shared libraries, and says so.
        let Ok(listing) = cmd::run("ldd", &[host]) else { return Ok(()) };
        for line in listing.lines() {
            ensure!(
                !line.contains("not found"),
                "{} needs a library that is missing: {line}",
                host.display()
            );
            if let Some(path) = line.split_whitespace().find(|w| w.starts_with('/')) {
                self.with_links(Path::new(path))?;
            }
        }
        Ok(())
    }

    /// A file at its own path, and where that is a link the link and what it leads to.
    fn with_links(&mut self, host: &Path) -> Result<()> {
        let mut path = host.to_owned();
        for _ in 0..8 {
            let place = self.place(&path);
            if self.nodes.contains_key(&place) {
                return Ok(());
            }
            let Ok(to) = fs::read_link(&path) else { return self.host_file(&path, &format!("/{place}")) };
            self.nodes.insert(place, Node::Link(to.to_string_lossy().into_owned()));
            path = normal(&path.parent().unwrap_or(Path::new("/")).join(to));
        }
        anyhow::bail!("{}: too many links", host.display())
    }

    /// The path as the archive has it, with the folders above it made.
    fn place(&mut self, path: &Path) -> String {
        let path = normal(path);
        let text = path.to_string_lossy();
        let text = text.trim_start_matches('/');
        let merged = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|p| text.starts_with(p));
        let text = if merged { format!("usr/{text}") } else { text.to_owned() };
        if let Some((parent, _)) = text.rsplit_once('/') {
            self.folder(parent);
        }
        text
    }

    fn folder(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.nodes.entry(path[..end].to_owned()).or_insert(Node::Folder);
        }
    }

    /// Writes the archive that QEMU hands to the kernel.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut whole = self.clone();
        let modules: String = self.modules.iter().map(|m| format!("{}\n", m.trim_end())).collect();
        whole.file("/etc/modules", 0o644, modules.as_bytes());
        cpio::archive(&whole.nodes)
            .and_then(|bytes| fs::write(path, bytes))
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with nothing in it, and the folder of its kernel, which goes with the test.
    fn empty() -> (Image, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::create_dir_all(root.join("lib/modules")).unwrap();
        fs::write(root.join("boot/vmlinuz-1"), "").unwrap();
        fs::write(root.join("lib/modules/a.ko"), "").unwrap();
        let kernel = Kernel::open(root).unwrap();
        (Image { nodes: BTreeMap::new(), modules: Vec::new(), kernel }, folder)
    }

    #[test]
    fn a_program_brings_its_libraries_and_no_library_is_there_twice() {
        let (mut image, _kernel) = empty();
        image.program(Path::new("/bin/sh"), "/opt/sh").unwrap();
        assert!(matches!(image.nodes["opt/sh"], Node::File { mode: 0o755, .. }));
        let libc: Vec<_> = image.nodes.keys().filter(|p| p.ends_with("/libc.so.6")).collect();
        assert_eq!(libc.len(), 1, "{libc:?}");
        assert!(libc[0].starts_with("usr/lib/"), "{libc:?}");
        assert_eq!(image.nodes["opt"], Node::Folder);
    }

    #[test]
    fn links_are_followed_and_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/lib.so.1"), "x").unwrap();
        let link = folder.join("lib.so");
        std::os::unix::fs::symlink("./deep/../deep/lib.so.1", &link).unwrap();
        let (mut image, _kernel) = empty();
        image.with_links(&link).unwrap();
        let at = |name: &str| folder.join(name).to_string_lossy().trim_start_matches('/').to_owned();
        assert!(matches!(image.nodes[&at("lib.so")], Node::Link(_)));
        assert!(matches!(image.nodes[&at("deep/lib.so.1")], Node::File { .. }));
    }

    #[test]
    fn a_module_is_loaded_once_with_its_parameters() {
        let (mut image, _kernel) = empty();
        image.load(&["a x=1", "a"]).unwrap();
        assert_eq!(image.modules, ["/lib/modules/a.ko x=1"]);
    }
}
