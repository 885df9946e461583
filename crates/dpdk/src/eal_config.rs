//! How to start EAL.

pub use crate::memory::HugePages;

/// From which level on DPDK logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Failures and what may become one.
    #[default]
    Warning,
    /// What an operator may want to know.
    Notice,
    /// What EAL finds while it starts.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    /// The name EAL knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Which PCI devices DPDK may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pci {
    /// None, now or later: the bus is not looked at.
    #[default]
    Off,
    /// These when EAL starts (addresses, with their device arguments), others when
    /// [`crate::Port::probe`] names them. Empty: none at the start.
    Listed(Vec<String>),
}

/// How to start EAL.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// The core of EAL's main thread; `None`: the core that the caller runs on.
    pub main_core: Option<usize>,
    /// Keeps the files of several DPDK processes on a machine apart. `None`: `godwit-<pid>`.
    pub file_prefix: Option<String>,
    /// Memory for buffers and rings, in MB, reserved at the start.
    pub memory_mb: u32,
    /// Whether to use hugepages.
    pub huge: HugePages,
    /// Which PCI devices DPDK may take.
    pub pci: Pci,
    /// Virtual devices to make at the start, such as `net_tap0,iface=tap7`. [`crate::Port::probe`]
    /// with the device's name then finds the port.
    pub vdevs: Vec<String>,
    /// More EAL arguments, separated by blanks, put last.
    pub extra_args: String,
    /// From which level on DPDK logs; what it logs becomes `tracing` events of target `dpdk`.
    pub log_level: LogLevel,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            main_core: None,
            file_prefix: None,
            memory_mb: 256,
            huge: HugePages::default(),
            pci: Pci::default(),
            vdevs: Vec::new(),
            extra_args: String::new(),
            log_level: LogLevel::default(),
        }
    }
}
