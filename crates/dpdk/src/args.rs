//! EAL's command line, made from an [`EalConfig`].

use crate::eal_config::{EalConfig, Pci};
use crate::memory::Memory;

/// A PCI address that no device has. An allow-list of just this one keeps EAL from taking devices
/// when it starts, and still lets them be plugged in later.
const NO_DEVICE: &str = "ffff:ff:1f.7";

/// Builds the arguments, program name first. `core` is where EAL's main thread is pinned.
pub(crate) fn build(config: &EalConfig, memory: Memory, core: usize, prefix: &str) -> Vec<String> {
    let mut args = vec!["godwit".to_owned()];
    // One lcore, numbered 0 whatever its core's number is: core numbers may exceed RTE_MAX_LCORE.
    args.push(format!("--lcores=0@{core}"));
    args.push(format!("--file-prefix={prefix}"));
    args.push(format!("--log-level={}", config.log_level.name()));
    args.push("--no-telemetry".into());
    args.push("-m".into());
    args.push(config.memory_mb.to_string());
    match memory {
        Memory::Huge => args.push("--in-memory".into()),
        // EAL refuses --in-memory beside --no-huge; --no-shconf keeps files off the disk as well.
        Memory::Ordinary => {
            args.extend(["--no-huge", "--no-shconf", "--iova-mode=va"].map(str::to_owned));
        }
    }
    match &config.pci {
        Pci::Off => args.push("--no-pci".into()),
        Pci::Listed(devices) if devices.is_empty() => args.extend(["-a".into(), NO_DEVICE.into()]),
        Pci::Listed(devices) => {
            args.extend(devices.iter().flat_map(|device| ["-a".to_owned(), device.clone()]));
        }
    }
    args.extend(config.vdevs.iter().map(|vdev| format!("--vdev={vdev}")));
    args.extend(config.extra_args.split_whitespace().map(str::to_owned));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(config: &EalConfig, memory: Memory) -> String {
        build(config, memory, 200, "p").join(" ")
    }

    #[test]
    fn no_pci_unless_wanted() {
        let mut config = EalConfig::default();
        assert!(line(&config, Memory::Huge).contains("--no-pci"));
        config.pci = Pci::Listed(vec!["0000:03:00.0".into(), "0000:03:00.1".into()]);
        let args = line(&config, Memory::Huge);
        assert!(args.contains("-a 0000:03:00.0 -a 0000:03:00.1") && !args.contains("--no-pci"), "{args}");
        config.pci = Pci::Listed(Vec::new());
        let args = line(&config, Memory::Huge);
        assert!(args.contains("-a ffff:") && !args.contains("--no-pci"), "{args}");
    }

    #[test]
    fn no_huge_and_in_memory_exclude_each_other() {
        let config = EalConfig::default();
        let huge = line(&config, Memory::Huge);
        let ordinary = line(&config, Memory::Ordinary);
        assert!(huge.contains("--in-memory") && !huge.contains("--no-huge"), "{huge}");
        assert!(ordinary.contains("--no-huge") && !ordinary.contains("--in-memory"), "{ordinary}");
    }

    #[test]
    fn one_lcore_and_the_callers_extras() {
        let config = EalConfig {
            vdevs: vec!["net_null0".into()],
            extra_args: " --legacy-mem  --match-allocations ".into(),
            ..EalConfig::default()
        };
        let args = line(&config, Memory::Huge);
        assert!(args.contains("--lcores=0@200"), "{args}");
        assert!(args.ends_with("--vdev=net_null0 --legacy-mem --match-allocations"), "{args}");
    }
}
