//! The switch's command line; what is given here goes before the file.

use std::path::PathBuf;

use clap::Parser;

use super::{Config, ConfigError, PortConfig, UplinkConfig};
use crate::placement::Pin;

const UPLINK_HELP: &str = "Underlay port: a PCI address or devargs, which replace those of the file's first \
uplink, or name=N[,ipv4=A/L][,ipv6=A/L][,gateway4=A][,gateway6=A][,vlan=N][,mtu=N][,rx_queues=N],dev=DEVARGS \
for a further one; dev comes last and takes the rest";
const PORT_HELP: &str = "Add a VM's port: name=N,vni=N,mac=M[,mtu=N][,activate=start], then \
vhost=PATH[,mode=server|client][,queues=N][,tso=off] for a guest on a vhost-user socket, or dev=DEVARGS, which takes \
the rest. Replaces the file's port of that name";

/// Userspace NVE: carries tenant frames between VMs and VXLAN tunnels, and keeps carrying them while VMs move.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "godwit", version = crate::VERSION, after_help = EXAMPLES)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This NVE's name.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Cores of the workers: a mask (0x3c) or a list (2-5).
    #[arg(long, value_name = "MASK|LIST")]
    pub workers: Option<String>,
    /// A receive queue that a certain core polls, several with commas; goes before the file's for that queue.
    #[arg(long, value_name = "PORT:QUEUE@CORE", value_delimiter = ',')]
    pub rxq_affinity: Vec<Pin>,
    /// Core of the control threads.
    #[arg(long, value_name = "CORE")]
    pub control_core: Option<usize>,
    #[arg(long, value_name = "DEVARGS|PCI", help = UPLINK_HELP)]
    pub uplink: Vec<String>,
    #[arg(long, value_name = "SPEC", help = PORT_HELP)]
    pub port: Vec<String>,
    /// The NVA, as https://HOST:PORT; several with commas.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub nva: Vec<String>,
    /// The certificate that the NVA is shown (PEM).
    #[arg(long, value_name = "FILE")]
    pub nva_certificate: Option<PathBuf>,
    /// Its key (PEM), readable by this user only.
    #[arg(long, value_name = "FILE")]
    pub nva_key: Option<PathBuf>,
    /// The authority that the NVA's certificate is from (PEM).
    #[arg(long, value_name = "FILE")]
    pub nva_authority: Option<PathBuf>,
    /// Path of the admin socket.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Further EAL arguments, in one string.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub eal: Option<String>,
    /// A worker that found nothing to do sleeps so long; 0 never sleeps.
    #[arg(long, value_name = "MICROSECONDS")]
    pub idle_sleep_us: Option<u64>,
    /// Check the configuration and exit.
    #[arg(long)]
    pub check: bool,
}

const EXAMPLES: &str = "\
Examples:
  godwit --config /etc/godwit.toml --check
  godwit --config /etc/godwit.toml --workers 0x3c --uplink 0000:03:00.0
  godwit --id a --workers 2-3 --nva https://[2001:db8::1]:6640 --nva-certificate certificate.pem \\
         --nva-key key.pem --nva-authority authority.pem \\
         --uplink name=up0,ipv4=198.18.0.1/24,rx_queues=2,dev=0000:03:00.0 --rxq-affinity up0:0@2,up0:1@3 \\
         --port name=v1,vni=100,mac=02:00:00:00:00:01,vhost=/run/v1.sock,queues=2

Logging is set by the environment variable GODWIT_LOG (error, warn, info, debug, trace).";

impl Flags {
    /// Lays the flags over a configuration.
    ///
    /// # Errors
    /// A `--uplink` or `--port` that cannot be read.
    pub fn apply(&self, c: &mut Config) -> Result<(), ConfigError> {
        let nve = &mut c.nve;
        set(&mut nve.id, &self.id);
        set(&mut nve.workers, &self.workers);
        set(&mut nve.eal, &self.eal);
        set(&mut nve.idle_sleep_us, &self.idle_sleep_us);
        set_option(&mut nve.control_core, &self.control_core);
        if !self.nva.is_empty() {
            nve.nva.clone_from(&self.nva);
        }
        set_option(&mut nve.nva_certificate, &self.nva_certificate);
        set_option(&mut nve.nva_key, &self.nva_key);
        set_option(&mut nve.nva_authority, &self.nva_authority);
        set_option(&mut nve.admin_socket, &self.admin_socket);
        let given = |pin: &Pin| self.rxq_affinity.iter().any(|p| p.port == pin.port && p.queue == pin.queue);
        nve.rxq_affinity.retain(|pin| !given(pin));
        nve.rxq_affinity.extend_from_slice(&self.rxq_affinity);
        for (n, text) in self.uplink.iter().enumerate() {
            apply_uplink(c, n, text)?;
        }
        for text in &self.port {
            let port: PortConfig = from_spec("--port", text)?;
            c.ports.retain(|p| p.name != port.name);
            c.ports.push(port);
        }
        Ok(())
    }
}

fn set<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(v) = from {
        to.clone_from(v);
    }
}

fn set_option<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
    if from.is_some() {
        to.clone_from(from);
    }
}

fn apply_uplink(c: &mut Config, n: usize, text: &str) -> Result<(), ConfigError> {
    if text.contains("dev=") && text.contains("name=") {
        let uplink: UplinkConfig = from_spec("--uplink", text)?;
        c.uplinks.retain(|u| u.name != uplink.name);
        c.uplinks.push(uplink);
        return Ok(());
    }
    let Some(first) = c.uplinks.get_mut(n) else {
        return Err(invalid(
            "--uplink",
            format!("{text:?} replaces the device of the file's uplink number {}, which is not there", n + 1),
            "write name=up0,ipv4=ADDRESS/LENGTH,dev=DEVARGS, or put an [[uplink]] into the file",
        ));
    };
    first.devargs = text.to_owned();
    first.bond = None;
    Ok(())
}

/// Reads `key=value,...,dev=REST` into the same structure that the file's table has, so that both
/// know the same keys and complain alike.
fn from_spec<T: serde::de::DeserializeOwned>(flag: &str, text: &str) -> Result<T, ConfigError> {
    let (head, dev) = match device_at(text) {
        Some((head, dev)) => (head.trim_end_matches(','), dev),
        None => {
            return Err(invalid(
                flag,
                format!("{text:?} names no device"),
                "end it with vhost=PATH, dev=DEVARGS or dev=PCI-ADDRESS",
            ));
        }
    };
    let mut table = toml::Table::new();
    table.insert("devargs".into(), dev.to_owned().into());
    for part in head.split(',').filter(|p| !p.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(invalid(
                flag,
                format!("{part:?} in {text:?} is not key=value"),
                "write key=value pairs",
            ));
        };
        let value = value.parse::<i64>().map_or_else(|_| value.to_owned().into(), toml::Value::Integer);
        table.insert(key.to_owned(), value);
    }
    table.try_into().map_err(|e: toml::de::Error| {
        invalid(flag, format!("{text:?}: {}", e.message()), "see --help for its keys")
    })
}

/// What comes before a device's arguments, and these: behind `dev=`, or from `vhost=` on.
fn device_at(text: &str) -> Option<(&str, &str)> {
    let starts = |key: &str| {
        text.match_indices(key).map(|(at, _)| at).find(|&at| at == 0 || text[..at].ends_with(','))
    };
    let dev = starts("dev=").map(|at| (&text[..at], &text[at + "dev=".len()..]));
    dev.or_else(|| starts("vhost=").map(|at| text.split_at(at)))
}

fn invalid(flag: &str, what: String, remedy: &str) -> ConfigError {
    ConfigError::Invalid { origin: "command line".into(), key: flag.into(), what, remedy: remedy.into() }
}
