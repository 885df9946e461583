//! The switch's configuration: a TOML file, overridden by flags, checked whole before anything starts.

mod bond;
mod check;
mod devices;
mod domain;
mod domains;
mod file;
mod flags;
mod routes;
mod text;
mod underlay;
mod uplink;

pub use bond::BondConfig;
pub use devices::room_for_vms;
pub use domain::{DomainConfig, DomainRouteConfig, SubnetConfig};
pub use file::{
    Activation, Config, DEVARGS_RELAYED, DirectoryKind, Hugepages, MoveModeKind, Nve, Offloads, OuterChoice,
    PortConfig, UplinkConfig, VmConfig, VnConfig,
};
pub use flags::Flags;
pub use routes::{kernel_interface, uplink_of};
pub use underlay::{RouteSource, UnderlayConfig};

use std::path::{Path, PathBuf};

/// A configuration that cannot be used: where, what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read it: {error}; give the path of a TOML file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// The file is not the TOML that is expected.
    #[error("{}: {error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column, key and what was expected.
        error: Box<toml::de::Error>,
    },
    /// A value is wrong by itself or together with others.
    #[error("{origin}: {key}: {what}; {remedy}")]
    Invalid {
        /// The file, or the flag's name.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
}

/// Reads the file, lays the flags over it, and checks the result against itself and the machine's cores.
///
/// # Errors
/// The first mistake found; see [`ConfigError`].
pub fn load(path: Option<&Path>, flags: &Flags, online_cores: &[usize]) -> Result<Config, ConfigError> {
    let mut config = match path {
        Some(path) => read(path)?,
        None => Config::default(),
    };
    let origin = path.map_or_else(|| "flags".into(), |p| p.display().to_string());
    flags.apply(&mut config)?;
    check::check(&config, &origin, online_cores)?;
    Ok(config)
}

/// A few lines that say what a switch with this configuration would be.
pub fn summary(c: &Config) -> String {
    let mut out = format!("configuration is good: NVE {}, workers on {}", c.nve.id, c.nve.workers);
    for u in &c.uplinks {
        let locators: Vec<String> =
            u.ipv4.map(|p| p.to_string()).into_iter().chain(u.ipv6.map(|p| p.to_string())).collect();
        let (tenant, own) = (check::tenant_mtu(c, u), locators.join(", "));
        let own = if own.is_empty() { "no address of its own".into() } else { own };
        out += &format!("\n  uplink {} on {}: {own}, tenant MTU {tenant}", u.name, uplink::place(u));
    }
    let loopback = [c.underlay.locator4.map(|a| a.to_string()), c.underlay.locator6.map(|a| a.to_string())];
    let loopback: Vec<String> = loopback.into_iter().flatten().collect();
    if !loopback.is_empty() {
        out += &format!("\n  locator of all uplinks: {}", loopback.join(", "));
    }
    for d in &c.domains {
        let vns = c.vns.iter().filter(|v| v.domain.as_ref() == Some(&d.name)).map(|v| v.vni.to_string());
        let vns: Vec<String> = vns.collect();
        out += &format!("\n  domain {} of VNs {}: {} static routes", d.name, vns.join(", "), d.route_count());
    }
    for p in &c.ports {
        out += &format!("\n  port {} on {}: VNI {}, {}", p.name, p.devargs, p.vni, p.mac);
    }
    out
}

fn read(path: &Path) -> Result<Config, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.into(), error })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse { path: path.into(), error: Box::new(error) })
}

#[cfg(test)]
mod tests;
