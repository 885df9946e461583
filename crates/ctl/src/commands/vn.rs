//! `godwitctl vn`: virtual networks.

use clap::{Subcommand, ValueEnum};
use godwit_api::v1;
use serde::Serialize;

use super::addresses::LearningArgs;
use super::subnets::SubnetCommand;
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
        /// Requests for addresses that the directory does not have: drop them, or flood ten a second for
        /// hosts that never announce themselves.
        #[arg(long, value_enum, default_value_t = Silent::Query)]
        silent: Silent,
        /// A claim for a VM that lives at another NVE, where no move was ordered: ask that NVE whether the VM
        /// still runs there, grant it, or refuse it.
        #[arg(long, value_enum, default_value_t = Unplanned::Verify)]
        unplanned: Unplanned,
        /// VMs that ask for their own IPv4 address by RARP, as a machine without a disk does: answer them.
        #[arg(long, value_enum, default_value_t = Rarp::Off)]
        rarp: Rarp,
        /// What becomes of multicast.
        #[arg(long, value_enum, default_value_t = Multicast::Flood)]
        multicast: Multicast,
        /// Segments of TCP connections with a VM that is detached, as in a cold move: drop them, or let the sender's
        /// switch answer them by a reset.
        #[arg(long, value_enum, default_value_t = OnCold::Drop)]
        on_cold: OnCold,
        /// Multicast groups of the underlay, one of IPv4, one of IPv6 or both, that carry what is for everybody where
        /// copies are too many; the underlay must route them.
        #[arg(long, value_name = "GROUP[,GROUP]", value_parser = subnet::groups)]
        underlay_group: Option<v1::UnderlayGroups>,
        /// Routing domain whose VNs reach each other by routing; without it the VN is bridged only.
        #[arg(long, value_name = "DOMAIN", value_parser = parse::name)]
        domain: Option<String>,
        /// Its VMs are not bridged: all that they send is routed, also within a subnet.
        #[arg(long, requires = "domain")]
        routed_only: bool,
        /// A subnet with the gateway that each switch is; may be repeated, below.
        #[arg(long = "subnet", value_name = "SUBNET", requires = "domain", value_parser = subnet::subnet)]
        subnets: Vec<v1::Subnet>,
        /// Whose word binds addresses.
        #[command(flatten)]
        learning: LearningArgs,
    },
    /// Change a virtual network.
    #[command(
        after_help = "Examples:\n  godwitctl vn set blue --silent flood\n  godwitctl vn set blue --unplanned \
            deny\n  godwitctl vn set blue --addresses-v6 learned=16",
        group = clap::ArgGroup::new("change").required(true).multiple(true)
            .args(["silent", "unplanned", "rarp", "addresses", "addresses_v4", "addresses_v6"])
            .args(["multicast", "underlay_group", "on_cold"])
    )]
    Set {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
        /// Requests for addresses that the directory does not have.
        #[arg(long, value_enum)]
        silent: Option<Silent>,
        /// Claims for VMs that live at another NVE, where no move was ordered.
        #[arg(long, value_enum)]
        unplanned: Option<Unplanned>,
        /// VMs that ask for their own IPv4 address by RARP.
        #[arg(long, value_enum)]
        rarp: Option<Rarp>,
        /// What becomes of multicast.
        #[arg(long, value_enum)]
        multicast: Option<Multicast>,
        /// Segments of TCP connections with a VM that is detached.
        #[arg(long, value_enum)]
        on_cold: Option<OnCold>,
        /// Multicast groups of the underlay in the place of those before, or `none`.
        #[arg(long, value_name = "GROUP[,GROUP]|none", value_parser = subnet::groups_or_none)]
        underlay_group: Option<v1::UnderlayGroups>,
        /// Whose word binds addresses.
        #[command(flatten)]
        learning: LearningArgs,
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

/// What becomes of ARP and ND requests for addresses that the directory does not have.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silent {
    /// They are dropped.
    Query,
    /// They are flooded, ten a second and NVE at most.
    Flood,
}

/// What becomes of a claim for a VM that lives at another NVE, where no move was ordered.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unplanned {
    /// The other NVE is asked; granted if the VM is gone, silent for 3 s, or the NVE away.
    Verify,
    /// It is granted.
    Accept,
    /// It is refused.
    Deny,
}

/// What becomes of segments of connections with a VM that is detached.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnCold {
    /// They are dropped.
    Drop,
    /// They are answered by a reset.
    Reset,
}

impl From<OnCold> for v1::OnCold {
    fn from(o: OnCold) -> v1::OnCold {
        match o {
            OnCold::Drop => v1::OnCold::Drop,
            OnCold::Reset => v1::OnCold::Reset,
        }
    }
}

/// What becomes of multicast in a VN.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Multicast {
    /// It is copied to everybody.
    Flood,
    /// It is copied to those that asked for it by IGMP or MLD; link-local groups to everybody.
    Snoop,
    /// It is dropped, but for link-local groups.
    Off,
}

impl From<Multicast> for v1::Multicast {
    fn from(m: Multicast) -> v1::Multicast {
        match m {
            Multicast::Flood => v1::Multicast::Flood,
            Multicast::Snoop => v1::Multicast::Snoop,
            Multicast::Off => v1::Multicast::Off,
        }
    }
}

/// What becomes of VMs' questions for their own addresses.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rarp {
    /// They are announcements and nothing else.
    Off,
    /// They are answered from the directory too.
    On,
}

impl From<Unplanned> for v1::Unplanned {
    fn from(u: Unplanned) -> v1::Unplanned {
        match u {
            Unplanned::Verify => v1::Unplanned::Verify,
            Unplanned::Accept => v1::Unplanned::Accept,
            Unplanned::Deny => v1::Unplanned::Deny,
        }
    }
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
    let VnCommand::Create {
        name,
        vni,
        mtu,
        transparent_vlan,
        silent,
        unplanned,
        rarp,
        multicast,
        on_cold,
        underlay_group,
        domain,
        routed_only,
        subnets,
        learning,
    } = command
    else {
        return None;
    };
    let groups = underlay_group.unwrap_or_default();
    let routing = domain.is_some().then_some(v1::VnRouting { domain: 0, routed_only, subnets });
    let settings = v1::VnSettings {
        mtu: mtu.unwrap_or(0),
        transparent_vlan,
        flood_silent: silent == Silent::Flood,
        rarp: rarp == Rarp::On,
        learning: Some(learning.all()),
        unplanned: v1::Unplanned::from(unplanned).into(),
        routing,
        multicast: v1::Multicast::from(multicast).into(),
        underlay_group_v4: groups.v4,
        underlay_group_v6: groups.v6,
        modes: Vec::new(),
        on_cold: v1::OnCold::from(on_cold).into(),
    };
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
        VnCommand::Set { name, silent, unplanned, rarp, multicast, on_cold, underlay_group, learning } => {
            let request = v1::SetVnRequest {
                name: name.clone(),
                flood_silent: silent.map(|s| s == Silent::Flood),
                unplanned: unplanned.map_or(v1::Unplanned::Unspecified, v1::Unplanned::from).into(),
                rarp: rarp.map(|r| r == Rarp::On),
                learning: learning.change(),
                multicast: multicast.map_or(v1::Multicast::Unspecified, v1::Multicast::from).into(),
                underlay_groups: underlay_group,
                on_cold: on_cold.map_or(v1::OnCold::Unspecified, v1::OnCold::from).into(),
            };
            let answer = nva.settle(nva.client().set_vn(request)).await;
            report(&nva, ctx, "changed", answer, &[(Named::Vn, &name)]).await
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
