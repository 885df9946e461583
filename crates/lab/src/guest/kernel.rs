//! The guests' kernel: Debian's for clouds, fetched and unpacked, not installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cmd;

/// The package whose dependency is the newest kernel.
const META: &str = "linux-image-cloud-amd64";
/// Names a folder with an unpacked kernel package, for machines without Debian's archive.
const OWN_KERNEL: &str = "GODWIT_GUEST_KERNEL";
/// Names the folder that fetched kernels are kept in.
const CACHE: &str = "GODWIT_GUEST_CACHE";

/// A kernel with its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What QEMU loads.
    pub image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Takes the kernel of `GODWIT_GUEST_KERNEL`, or the one that was fetched before, or fetches it.
    ///
    /// # Errors
    /// Where there is none and it cannot be fetched; says what is missing.
    pub fn get() -> Result<Kernel> {
        if let Some(folder) = std::env::var_os(OWN_KERNEL) {
            return Kernel::open(Path::new(&folder)).with_context(|| format!("the kernel of {OWN_KERNEL}"));
        }
        let cache = cache_folder()?;
        if let Some(kernel) = newest(&cache) {
            return Ok(kernel);
        }
        fetch(&cache).with_context(|| {
            format!(
                "no kernel for guests: they run Debian's {META}, which is fetched once into {}; \
                 elsewhere, unpack a kernel package and set {OWN_KERNEL} to its folder",
                cache.display()
            )
        })
    }

    /// An unpacked kernel package.
    ///
    /// # Errors
    /// Where the folder has no `boot/vmlinuz-*` or no modules.
    pub fn open(folder: &Path) -> Result<Kernel> {
        let boot = folder.join("boot");
        let image = entries(&boot)?
            .into_iter()
            .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
            .with_context(|| format!("no vmlinuz in {}", boot.display()))?;
        let mut modules = BTreeMap::new();
        // Where /lib is a link into /usr, packages may have either.
        for lib in ["lib/modules", "usr/lib/modules"] {
            collect(&folder.join(lib), &mut modules);
        }
        ensure!(!modules.is_empty(), "no kernel modules (*.ko) below {}", folder.display());
        Ok(Kernel { image, modules })
    }

    /// The files of these modules and of what they need, in an order in which they can be loaded.
    ///
    /// # Errors
    /// Where the kernel has no such module.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut ordered = Vec::new();
        for name in names {
            self.add(&canonical(name), &mut ordered)?;
        }
        Ok(ordered)
    }

    fn add(&self, name: &str, ordered: &mut Vec<PathBuf>) -> Result<()> {
        let file = self.modules.get(name).with_context(|| {
            format!("the kernel {} has no module {name} (built in, or not at all)", self.image.display())
        })?;
        if ordered.contains(file) {
            return Ok(());
        }
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        for needed in dependencies(&bytes) {
            self.add(&canonical(&needed), ordered)?;
        }
        ordered.push(file.clone());
        Ok(())
    }
}

/// What a module says in its `.modinfo` section that it needs.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let value = &rest[..rest.iter().position(|b| *b == 0).unwrap_or(0)];
    let text = String::from_utf8_lossy(value);
    text.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

/// Modules are named with either of the two, their files too.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn collect(folder: &Path, modules: &mut BTreeMap<String, PathBuf>) {
    for path in entries(folder).unwrap_or_default() {
        if path.is_dir() {
            collect(&path, modules);
        } else if path.extension().is_some_and(|e| e == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            modules.insert(canonical(&name), path.clone());
        }
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    Ok(list.flatten().map(|e| e.path()).collect())
}

/// Cargo's target folder where the program lies in one, else one for all users.
fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE) {
        return Ok(folder.into());
    }
    let exe = std::env::current_exe().context("where am I?")?;
    let target = exe.ancestors().find(|f| f.join("CACHEDIR.TAG").is_file());
    Ok(target.map_or_else(|| "/var/cache/godwit-lab".into(), |t| t.join("guest")))
}

fn newest(cache: &Path) -> Option<Kernel> {
    let mut folders = entries(cache).ok()?;
    folders.sort();
    folders.iter().rev().filter(|f| !is_unfinished(f)).find_map(|f| Kernel::open(f).ok())
}

fn is_unfinished(folder: &Path) -> bool {
    folder.extension().is_some_and(|e| e == "part")
}

fn fetch(cache: &Path) -> Result<Kernel> {
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        ensure!(cmd::exists(tool), "{tool} is missing: this is no Debian");
    }
    let package = kernel_package()?;
    // Under a name of this process's own until it is whole: others may fetch at the same time.
    let part = cache.join(format!("{}.part", std::process::id()));
    fs::create_dir_all(&part).with_context(|| format!("creating {}", part.display()))?;
    let result = download(&package, &part).and_then(|()| {
        let folder = cache.join(&package);
        // Fails where another process was quicker, whose folder is as good.
        let _ = fs::rename(part.join("root"), &folder);
        Kernel::open(&folder)
    });
    let _ = fs::remove_dir_all(&part);
    result
}

/// The name of the package that the newest kernel is in.
fn kernel_package() -> Result<String> {
    let text = cmd::run("apt-cache", &["depends", META])
        .context("apt does not know the package: run `apt-get update` first")?;
    let name = text.lines().find_map(|l| l.trim().strip_prefix("Depends: "));
    name.map(str::to_owned).with_context(|| format!("apt-cache knows no dependency of {META}: {text}"))
}

fn download(package: &str, folder: &Path) -> Result<()> {
    eprintln!("fetching {package} for the guests (once)");
    let line = format!("cd '{}' && exec apt-get -qq download {package}", folder.display());
    cmd::run("sh", &["-c", &line])?;
    let Some(deb) = entries(folder)?.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb")) else {
        bail!("apt-get download left no package in {}", folder.display());
    };
    cmd::run("dpkg-deb", &["-x".as_ref(), deb.as_os_str(), folder.join("root").as_os_str()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let modules = root.join("lib/modules/6/kernel");
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::create_dir_all(&modules).unwrap();
        fs::write(root.join("boot/vmlinuz-6"), "").unwrap();
        let module = |name: &str, needs: &str| {
            fs::write(modules.join(format!("{name}.ko")), format!("x\0depends={needs}\0y")).unwrap();
        };
        module("net_failover", "failover");
        module("failover", "");
        module("virtio-net", "net_failover,virtio");
        module("virtio", "");
        let kernel = Kernel::open(root).unwrap();
        let names: Vec<String> = kernel
            .modules(&["virtio_net", "virtio"])
            .unwrap()
            .iter()
            .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["failover", "net_failover", "virtio", "virtio-net"]);
        assert!(kernel.modules(&["e1000"]).unwrap_err().to_string().contains("e1000"));
    }
}
