//! `godwitctl vn`: virtual networks.

use clap::Subcommand;
use godwit_api::v1;
use serde::Serialize;

use super::subnets::SubnetCommand;
use super::vn_options::VnOptions;
use super::vn_view::{VnList, VnView};
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::nva::Nva;
use crate::parse;
use crate::subnet;
use crate::suggest::{self, Named};

const CREATE_HELP: &str = "\
Subnets:
  PREFIX,gateway=ADDRESS[,ra[=managed][+other]][,lifetime=TIME][,dhcp[=TIME]][,dns=ADDRESS[+ADDRESS...]]

  ra        send router advertisements (IPv6); managed: hosts get addresses by DHCPv6, other: only the rest
  lifetime  life of the default route that they announce, 30m by default, 0s: none
  dhcp      answer DHCP with the VMs' recorded addresses, for the time of the lease (1h by default)
  dns       DNS servers that DHCP names

Examples:
  godwitctl vn create blue --vni 5001 --mtu 1400
  godwitctl vn create web --vni 5002 --domain shop --subnet 10.1.0.0/24,gateway=10.1.0.1,dhcp=12h,dns=10.1.0.2 \\
      --subnet 2001:db8:1::/64,gateway=2001:db8:1::1,ra=managed,dhcp";

/// Virtual networks.
#[derive(Subcommand, Clone, Debug)]
pub enum VnCommand {
    /// Create a virtual network.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
        /// Its VXLAN network identifier, 0 to 16777215, unique in the data center.
        #[arg(long, value_name = "N", value_parser = parse::vni)]
        vni: u32,
        /// Largest tenant packet in bytes; without it each NVE uses what its uplink allows.
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
        mtu: Option<u32>,
        /// Let the tenants' VLAN tags pass; without it tagged frames are dropped.
        #[arg(long)]
        transparent_vlan: bool,
        /// Its settings.
        #[command(flatten)]
        options: Box<VnOptions>,
        /// Its VMs are not bridged: all that they send is routed, also within a subnet.
        #[arg(long, requires = "domain")]
        routed_only: bool,
        /// A subnet with the gateway that each switch is; may be repeated, below.
        #[arg(long = "subnet", value_name = "SUBNET", requires = "domain", value_parser = subnet::subnet)]
        subnets: Vec<v1::Subnet>,
    },
    /// Change a virtual network.
    #[command(
        after_help = "Examples:\n  godwitctl vn set blue --silent flood\n  godwitctl vn set blue --unplanned \
            deny\n  godwitctl vn set blue --addresses-v6 learned=16\n  godwitctl vn set blue --domain shop",
        group = clap::ArgGroup::new("change").required(true).multiple(true)
            .args(VnOptions::NAMES)
            .args(["no_domain", "routed_only"])
    )]
    Set {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
        /// Its settings.
        #[command(flatten)]
        options: Box<VnOptions>,
        /// Take it out of its routing domain, with its subnets; bridging goes on.
        #[arg(long, conflicts_with = "domain")]
        no_domain: bool,
        /// Its VMs are not bridged, or (`--routed-only=false`) bridged again.
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
              conflicts_with = "no_domain")]
        routed_only: Option<bool>,
    },
    /// List the virtual networks.
    List,
    /// Show one virtual network with its subnets.
    Show {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Subnets of a virtual network of a routing domain.
    #[command(subcommand)]
    Subnet(SubnetCommand),
    /// Delete a virtual network that has no VMs.
    Delete {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// A VN that was created, changed or deleted.
#[derive(Serialize)]
struct Changed {
    #[serde(skip)]
    verb: &'static str,
    #[serde(flatten)]
    vn: VnView,
}

impl Report for Changed {
    fn text(&self) -> String {
        format!("VN {} {} (VNI {})\n", self.vn.name, self.verb, self.vn.vni)
    }
}

/// The order of `vn create`.
fn creation(command: VnCommand) -> Option<v1::Vn> {
    let VnCommand::Create { name, vni, mtu, transparent_vlan, options, routed_only, subnets } = command
    else {
        return None;
    };
    let domain = options.domain.clone();
    let routing = domain.is_some().then_some(v1::VnRouting { domain: 0, routed_only, subnets });
    let settings = v1::VnSettings { mtu: mtu.unwrap_or(0), transparent_vlan, routing, ..options.settings() };
    let domain = domain.unwrap_or_default();
    Some(v1::Vn { name, vni, settings: Some(settings), domain, ..v1::Vn::default() })
}

/// The VN that an order was about, or the failure with the name that was probably meant.
pub(super) async fn report(
    nva: &Nva,
    ctx: &mut Context<'_>,
    verb: &'static str,
    answer: Result<v1::Vn, Failure>,
    used: &[(Named, &str)],
) -> Result<(), Failure> {
    match answer {
        Ok(vn) => ctx.show(&Changed { verb, vn: vn.into() }),
        Err(f) => Err(suggest::explain(nva, f, used).await),
    }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: VnCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    match command {
        VnCommand::Create { .. } => {
            let Some(vn) = creation(command) else { return Ok(()) };
            let domain = vn.domain.clone();
            let used: &[(Named, &str)] = if domain.is_empty() { &[] } else { &[(Named::Domain, &domain)] };
            let answer = nva.settle(nva.client().create_vn(vn)).await;
            report(&nva, ctx, "created", answer, used).await
        }
        VnCommand::Set { name, options, no_domain, routed_only } => {
            let domain = options.domain.clone();
            let request = v1::SetVnRequest {
                name: name.clone(),
                domain: domain.clone().or_else(|| no_domain.then(String::new)),
                routed_only,
                ..options.change()
            };
            let answer = nva.settle(nva.client().set_vn(request)).await;
            let used = [(Named::Vn, name.as_str())].into_iter();
            let used: Vec<_> = used.chain(domain.as_deref().map(|d| (Named::Domain, d))).collect();
            report(&nva, ctx, "changed", answer, &used).await
        }
        VnCommand::List => {
            let vns = nva.vns().await?.into_iter().map(VnView::from).collect();
            ctx.show(&VnList { vns })
        }
        VnCommand::Show { name } => {
            let vns = nva.vns().await?;
            match vns.iter().find(|v| v.name == name) {
                Some(vn) => ctx.show(&VnView::from(vn.clone())),
                None => {
                    let known: Vec<String> = vns.into_iter().map(|v| v.name).collect();
                    Err(suggest::unknown("VN", &name, &known, "godwitctl vn list"))
                }
            }
        }
        VnCommand::Subnet(command) => super::subnets::run(command, &nva, ctx).await,
        VnCommand::Delete { name } => {
            let answer = nva.settle(nva.client().delete_vn(v1::VnName { name: name.clone() })).await;
            report(&nva, ctx, "deleted", answer, &[(Named::Vn, &name)]).await
        }
    }
}
