//! `godwitctl vn subnet`: subnets of a VN of a routing domain.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use godwit_api::v1;
use godwit_wire::Prefix;
use serde::Serialize;

use super::vn::report;
use crate::context::Context;
use crate::failure::Failure;
use crate::nva::Nva;
use crate::suggest::Named;
use crate::{parse, subnet, text};

/// Subnets of a virtual network of a routing domain.
#[derive(Subcommand, Clone, Debug)]
pub enum SubnetCommand {
    /// Add a subnet, or give one that is there another gateway or other settings.
    Add(SubnetArgs),
    /// Remove a subnet that no VM has an address in.
    Remove {
        /// Name of the VN.
        #[arg(value_parser = parse::name)]
        vn: String,
        /// Its prefix.
        #[arg(value_parser = parse::prefix)]
        prefix: Prefix,
    },
}

/// Arguments of `vn subnet add`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl vn subnet add web 10.2.0.0/24 --gateway 10.2.0.1 --dhcp --dns 10.2.0.2,10.2.0.3
  godwitctl vn subnet add web 2001:db8:2::/64 --gateway 2001:db8:2::1 --ra=managed --dhcp=12h")]
pub struct SubnetArgs {
    /// Name of the VN.
    #[arg(value_parser = parse::name)]
    vn: String,
    /// Its addresses.
    #[arg(value_parser = parse::prefix)]
    prefix: Prefix,
    /// Address of the gateway that each switch is, one of the subnet's.
    #[arg(long, value_name = "ADDRESS", value_parser = subnet::address)]
    gateway: IpAddr,
    /// Send router advertisements (IPv6); managed: hosts get addresses by DHCPv6, other: only the rest.
    #[arg(long, value_name = "managed|other|managed+other", num_args = 0..=1, require_equals = true,
        value_parser = subnet::advertise)]
    ra: Option<Option<v1::Advertise>>,
    /// Life of the default route that they announce (30m by default); 0s: none.
    #[arg(long, value_name = "TIME", requires = "ra", value_parser = subnet::lifetime)]
    lifetime: Option<u32>,
    /// Answer DHCP with the VMs' recorded addresses, for the time of the lease (1h by default).
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = subnet::lease)]
    dhcp: Option<Option<u32>>,
    /// DNS servers that DHCP names.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', requires = "dhcp", value_parser = subnet::address)]
    dns: Vec<IpAddr>,
}

impl SubnetArgs {
    fn request(self) -> Result<v1::SubnetOfVn, subnet::BadSubnet> {
        let plain = v1::Advertise { managed: false, other: false, lifetime_s: subnet::LIFETIME_S };
        let advertise = self.ra.map(|flags| flags.unwrap_or(plain));
        let lease_s = self.dhcp.map(|lease| lease.unwrap_or(subnet::LEASE_S));
        let dns = (!self.dns.is_empty()).then_some(self.dns);
        let subnet = subnet::built(self.prefix, self.gateway, advertise, self.lifetime, lease_s, dns)?;
        Ok(v1::SubnetOfVn { vn: self.vn, subnet: Some(subnet) })
    }
}

/// A subnet for output.
#[derive(Serialize)]
pub(super) struct SubnetView {
    pub prefix: String,
    gateway: String,
    /// Null: no router advertisements.
    advertise: Option<AdvertiseView>,
    /// Null: DHCP is not answered.
    dhcp: Option<DhcpView>,
}

#[derive(Serialize)]
struct AdvertiseView {
    managed: bool,
    other: bool,
    lifetime_s: u32,
}

#[derive(Serialize)]
struct DhcpView {
    lease_s: u32,
    dns: Vec<String>,
}

impl From<v1::Subnet> for SubnetView {
    fn from(s: v1::Subnet) -> SubnetView {
        let advertise =
            |a: v1::Advertise| AdvertiseView { managed: a.managed, other: a.other, lifetime_s: a.lifetime_s };
        SubnetView {
            prefix: s.prefix,
            gateway: text::ip(&s.gateway),
            advertise: s.advertise.map(advertise),
            dhcp: s.dhcp.map(|d| DhcpView { lease_s: d.lease_s, dns: text::ips(&d.dns) }),
        }
    }
}

impl SubnetView {
    /// All that is said of it, in a line.
    pub fn sentence(&self) -> String {
        let mut line = format!("{}, gateway {}", self.prefix, self.gateway);
        if let Some(a) = &self.advertise {
            let flags = [(a.managed, " managed"), (a.other, " other")];
            let flags: String = flags.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
            line += &format!(", advertised{flags} for {}", text::span_ms(u64::from(a.lifetime_s) * 1000));
        }
        if let Some(d) = &self.dhcp {
            line += &format!(", DHCP for {}", text::span_ms(u64::from(d.lease_s) * 1000));
            if !d.dns.is_empty() {
                line += &format!(" with DNS {}", d.dns.join(" "));
            }
        }
        line
    }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: SubnetCommand, nva: &Nva, ctx: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        SubnetCommand::Add(args) => {
            let request = args.request().map_err(|e| Failure::usage(e.to_string()))?;
            let vn = request.vn.clone();
            let answer = nva.settle(nva.client().add_subnet(request)).await;
            report(nva, ctx, "changed", answer, &[(Named::Vn, &vn)]).await
        }
        SubnetCommand::Remove { vn, prefix } => {
            let request = v1::RemoveSubnetRequest { vn: vn.clone(), prefix: prefix.to_string() };
            let answer = nva.settle(nva.client().remove_subnet(request)).await;
            report(nva, ctx, "changed", answer, &[(Named::Vn, &vn)]).await
        }
    }
}
