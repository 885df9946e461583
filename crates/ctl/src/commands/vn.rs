//! `godwitctl vn`: virtual networks.

use clap::Subcommand;
use godwit_nva_api::v1;
use serde::Serialize;

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

/// A VN for output.
#[derive(Serialize)]
struct VnView {
    name: String,
    vni: u32,
    /// Null: each NVE's own.
    mtu: Option<u32>,
    transparent_vlan: bool,
    vms: u32,
    members: Vec<String>,
}

impl From<v1::Vn> for VnView {
    fn from(v: v1::Vn) -> VnView {
        VnView {
            name: v.name,
            vni: v.vni,
            mtu: (v.mtu != 0).then_some(v.mtu),
            transparent_vlan: v.transparent_vlan,
            vms: v.vms,
            members: v.members,
        }
    }
}

#[derive(Serialize)]
struct VnList {
    vns: Vec<VnView>,
}

impl Report for VnList {
    fn text(&self) -> String {
        let mut t = Table::new(&["NAME", ">VNI", ">MTU", "VLAN TAGS", ">VMS", "NVES"]);
        for v in &self.vns {
            t.row([
                v.name.clone(),
                v.vni.to_string(),
                v.mtu.map(|m| m.to_string()).unwrap_or_default(),
                if v.transparent_vlan { "pass" } else { "dropped" }.into(),
                v.vms.to_string(),
                v.members.join(" "),
            ]);
        }
        t.text_or("no VNs; `godwitctl vn create` makes one")
    }
}

/// A VN that was created or deleted.
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
        VnCommand::Create { name, vni, mtu, transparent_vlan } => {
            let vn = v1::Vn { name, vni, mtu: mtu.unwrap_or(0), transparent_vlan, ..v1::Vn::default() };
            let vn = nva.settle(nva.client().create_vn(vn)).await?;
            ctx.show(&Changed { verb: "created", vn: vn.into() })
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
