//! `godwitctl vn`: virtual networks.

use clap::{Subcommand, ValueEnum};
use godwit_api::v1;
use serde::Serialize;

use super::addresses::{LearningArgs, LearningView};
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::parse;
use crate::suggest::{self, Named};
use crate::table::Table;

/// Virtual networks.
#[derive(Subcommand, Clone, Debug)]
pub enum VnCommand {
    /// Create a virtual network.
    #[command(after_help = "Example:\n  godwitctl vn create blue --vni 5001 --mtu 1400")]
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
        /// Whose word binds addresses.
        #[command(flatten)]
        learning: LearningArgs,
    },
    /// List the virtual networks.
    List,
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

/// A VN for output.
#[derive(Serialize)]
struct VnView {
    name: String,
    vni: u32,
    /// Null: each NVE's own.
    mtu: Option<u32>,
    transparent_vlan: bool,
    /// query or flood.
    silent: &'static str,
    /// verify, accept or deny.
    unplanned: &'static str,
    /// Questions for own addresses are answered.
    rarp: bool,
    /// Whose word binds addresses, where a VM's definition does not say.
    addresses: LearningView,
    vms: u32,
    members: Vec<String>,
    /// Members that ask for the records that they need.
    pulling: Vec<String>,
}

impl From<v1::Vn> for VnView {
    fn from(v: v1::Vn) -> VnView {
        let settings = v.settings.unwrap_or_default();
        let unplanned = match settings.unplanned() {
            v1::Unplanned::Unspecified | v1::Unplanned::Verify => "verify",
            v1::Unplanned::Accept => "accept",
            v1::Unplanned::Deny => "deny",
        };
        VnView {
            name: v.name,
            vni: v.vni,
            mtu: (settings.mtu != 0).then_some(settings.mtu),
            transparent_vlan: settings.transparent_vlan,
            silent: if settings.flood_silent { "flood" } else { "query" },
            unplanned,
            rarp: settings.rarp,
            addresses: settings.learning.as_ref().into(),
            vms: v.vms,
            members: v.members,
            pulling: v.pulling,
        }
    }
}

impl VnView {
    fn nves(&self) -> String {
        let name = |n: &String| if self.pulling.contains(n) { format!("{n} (pulls)") } else { n.clone() };
        self.members.iter().map(name).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Serialize)]
struct VnList {
    vns: Vec<VnView>,
}

impl Report for VnList {
    fn text(&self) -> String {
        let mut t = Table::new(&[
            "NAME",
            ">VNI",
            ">MTU",
            "VLAN TAGS",
            "SILENT",
            "UNPLANNED",
            "RARP",
            "ADDRESSES",
            ">VMS",
            "NVES",
        ]);
        for v in &self.vns {
            t.row([
                v.name.clone(),
                v.vni.to_string(),
                v.mtu.map(|m| m.to_string()).unwrap_or_default(),
                if v.transparent_vlan { "pass" } else { "dropped" }.into(),
                v.silent.into(),
                v.unplanned.into(),
                if v.rarp { "on" } else { "off" }.into(),
                v.addresses.words(),
                v.vms.to_string(),
                v.nves(),
            ]);
        }
        t.text_or("no VNs; `godwitctl vn create` makes one")
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

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: VnCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    match command {
        VnCommand::Create { name, vni, mtu, transparent_vlan, silent, unplanned, rarp, learning } => {
            let settings = v1::VnSettings {
                mtu: mtu.unwrap_or(0),
                transparent_vlan,
                flood_silent: silent == Silent::Flood,
                rarp: rarp == Rarp::On,
                learning: Some(learning.all()),
                unplanned: v1::Unplanned::from(unplanned).into(),
                ..v1::VnSettings::default()
            };
            let vn = v1::Vn { name, vni, settings: Some(settings), ..v1::Vn::default() };
            let vn = nva.settle(nva.client().create_vn(vn)).await?;
            ctx.show(&Changed { verb: "created", vn: vn.into() })
        }
        VnCommand::Set { name, silent, unplanned, rarp, learning } => {
            let flood_silent = silent.map(|s| s == Silent::Flood);
            let unplanned = unplanned.map_or(v1::Unplanned::Unspecified, v1::Unplanned::from).into();
            let rarp = rarp.map(|r| r == Rarp::On);
            let learning = learning.change();
            let request = v1::SetVnRequest { name: name.clone(), flood_silent, unplanned, rarp, learning };
            match nva.settle(nva.client().set_vn(request)).await {
                Ok(vn) => ctx.show(&Changed { verb: "changed", vn: vn.into() }),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Vn, &name)]).await),
            }
        }
        VnCommand::List => {
            let vns = nva.vns().await?.into_iter().map(VnView::from).collect();
            ctx.show(&VnList { vns })
        }
        VnCommand::Delete { name } => {
            match nva.settle(nva.client().delete_vn(v1::VnName { name: name.clone() })).await {
                Ok(vn) => ctx.show(&Changed { verb: "deleted", vn: vn.into() }),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Vn, &name)]).await),
            }
        }
    }
}
