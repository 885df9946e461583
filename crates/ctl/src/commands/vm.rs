//! `godwitctl vm`: VMs, where they are, and moving them.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand, ValueEnum};
use godwit_api::v1;
use godwit_wire::Mac;
use serde::Serialize;

use super::addresses::{AllowedArgs, AllowedView, BoundView, LearningArgs, OwnerView, SetArgs, bound_text};
use super::mirror::{self, MirrorArgs, MirrorView, MirroredArgs};
use super::moves;
use super::pause::{self, PauseArgs, PauseView};
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::nva::Nva;
use crate::suggest::{self, Named};
use crate::table::{Table, facts};
use crate::{parse, text};

/// VMs.
#[derive(Subcommand, Clone, Debug)]
pub enum VmCommand {
    /// Define a VM's interface: its VN and its addresses.
    Define(DefineArgs),
    /// Change what is named of a VM, while it runs: addresses, what it shares, routes or has within it.
    Set(Box<SetArgs>),
    /// List VMs.
    List {
        /// Only those of this VN.
        #[arg(long, value_parser = parse::name)]
        vn: Option<String>,
    },
    /// Show one VM.
    Show {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Delete a VM from the directory.
    Delete {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Let a frozen VM be claimed and moved again: one that went to and fro without orders stays where it is.
    Clear {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Say that a VM has left an NVE, as its manager knows: the other NVEs ask the directory once more.
    Departed(DepartedArgs),
    /// Order a move, so that both NVEs prepare for it; pausing and starting the VM is up to its manager.
    Move(MoveArgs),
    /// Record where a VM's state is mirrored to, as a warm move needs it.
    Mirror(MirrorArgs),
    /// Say that a VM has been mirrored.
    Mirrored(MirroredArgs),
    /// Pause a VM's connections: frames for it wait, or are dropped, while it runs on.
    Pause(PauseArgs),
    /// Let a VM's connections go on: what waited is delivered in order.
    Resume {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// Arguments of `vm define`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl vm define web1 --vn blue --mac 02:00:00:00:00:01 --ipv4 10.0.0.1 --ipv6 2001:db8::1
  godwitctl vm define gw --vn blue --mac 02:00:00:00:00:fe --ipv4 10.0.0.254 --router --pin rack7-vtep
  godwitctl vm define lb1 --vn blue --mac 02:00:00:00:00:07 --ipv4 10.0.0.7 --virtual 10.0.0.200
  godwitctl vm define node1 --vn blue --mac 02:00:00:00:00:08 --ipv4 10.0.0.8 --route 10.244.1.0/24 \\
    --nested 02:00:00:00:01:01,02:00:00:00:01:02

It says all at once: what is not named is not allowed any more. `vm set` changes what is named.")]
pub struct DefineArgs {
    /// Its name.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The VN, by name.
    #[arg(long, value_parser = parse::name)]
    vn: String,
    /// Its MAC address.
    #[arg(long, value_parser = parse::vm_mac)]
    mac: Mac,
    /// An IPv4 address of it; may be repeated, or several with commas.
    #[arg(long, value_name = "IP", value_parser = parse::ipv4, value_delimiter = ',')]
    ipv4: Vec<Ipv4Addr>,
    /// An IPv6 address of it; may be repeated, or several with commas.
    #[arg(long, value_name = "IP", value_parser = parse::ipv6, value_delimiter = ',')]
    ipv6: Vec<Ipv6Addr>,
    /// It is a router: NVEs say so when they answer neighbor solicitations for it. Without this they
    /// say what the VM's own advertisements say. Only such VMs may send router advertisements,
    /// redirects and answers of DHCP, and from any address that is no other VM's of the VN (NAT, VPN).
    #[arg(long)]
    router: bool,
    #[command(flatten)]
    learning: LearningArgs,
    #[command(flatten)]
    more: AllowedArgs,
    /// It lives behind this NVE, which may be a foreign one, and no claim moves it.
    #[arg(long, value_name = "NVE", value_parser = parse::name)]
    pin: Option<String>,
    /// What it may send and receive; without this it has no policy. `godwitctl policy define` makes one.
    #[arg(long, value_name = "NAME", value_parser = parse::name)]
    policy: Option<String>,
}

/// Arguments of `vm move`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl vm move web1 --to nve-b
  godwitctl vm move web1 --to nve-b --id maintenance-17 --wait --timeout 60
  godwitctl vm move web1 --to nve-b --mode cold --accept-interruption

The same --id again is the same move, so an order may be repeated when its answer was lost.
With --wait the exit code says how it ended: 0 done, 1 aborted or failed.
A warm or cold move begins when the VM is shut down at its old NVE; `move report` says what its manager does.")]
pub struct MoveArgs {
    /// The VM.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The new NVE.
    #[arg(long, value_name = "NVE", value_parser = parse::name)]
    to: String,
    /// How it moves.
    #[arg(long, value_enum, default_value_t = Mode::Hot)]
    mode: Mode,
    /// Accept that a warm or cold move shuts the VM down and ends its connections; the move's history says so.
    #[arg(long)]
    accept_interruption: bool,
    /// Your own name for the move; without it the NVA makes one up.
    #[arg(long, value_parser = parse::move_id)]
    id: Option<String>,
    /// Wait until it is done, and print its timeline.
    #[arg(long)]
    wait: bool,
}

/// Arguments of `vm departed`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl vm departed web1
  godwitctl vm departed web1 --nve nve-a

A hint: the location stays until that NVE withdraws the VM or another one claims it. Meanwhile others
go on sending by what they have.")]
pub struct DepartedArgs {
    /// The VM.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The NVE that it left, which has it or had it last; without this the one that the directory has it at.
    #[arg(long, value_name = "NVE", value_parser = parse::name)]
    nve: Option<String>,
}

/// How a VM moves.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Running: addresses and connections stay.
    Hot,
    /// Shut down, then started where its state was mirrored: addresses stay, connections begin anew.
    Warm,
    /// Shut down, sent, then started: addresses stay, connections begin anew.
    Cold,
}

/// A VM for output.
#[derive(Serialize)]
struct VmView {
    name: String,
    vni: u32,
    mac: String,
    ipv4: Vec<String>,
    ipv6: Vec<String>,
    state: String,
    nve: Option<String>,
    nve_ipv4: Option<String>,
    nve_ipv6: Option<String>,
    version: Option<String>,
    router: bool,
    /// The router flag is the operator's.
    router_pinned: bool,
    /// Addresses that it advertised with the O flag clear, as anycast addresses are.
    no_override: Vec<String>,
    pinned: bool,
    /// It stays where it is after too many unplanned moves.
    frozen: bool,
    /// NVEs that hear of changes; null where it was not asked for.
    interested: Option<Vec<String>>,
    moving: Option<String>,
    /// Where it is to run by a warm move; nothing is sent there yet.
    pending_nve: Option<String>,
    /// Where its state is mirrored to.
    standby: Option<MirrorView>,
    /// The pause of its connections that is on or was of late; null: none.
    pause: Option<PauseView>,
    /// What it may send and receive; null: no policy.
    policy: Option<String>,
    /// What it may have beside its recorded addresses.
    allowed: AllowedView,
    /// Addresses that it has by its own word.
    bound: Vec<BoundView>,
    /// Virtual MACs that it has.
    bound_macs: Vec<String>,
    /// Who has what it shares; null where it was not asked for.
    shared: Option<Vec<OwnerView>>,
}

impl From<v1::VmRecord> for VmView {
    fn from(r: v1::VmRecord) -> VmView {
        let (vni, mac) = text::key(r.key.as_ref());
        let state = text::enum_name(r.state().as_str_name(), "BINDING_STATE_");
        let locators = r.location.as_ref().and_then(|l| l.locators.clone()).unwrap_or_default();
        VmView {
            vni,
            mac,
            state,
            ipv4: text::ips(&r.ipv4),
            ipv6: text::ips(&r.ipv6),
            nve: r.location.map(|l| l.nve),
            nve_ipv4: text::locator(&locators.v4),
            nve_ipv6: text::locator(&locators.v6),
            version: text::version(r.version.as_ref()),
            router: r.router,
            router_pinned: r.router_pinned,
            no_override: text::ips(&r.no_override),
            interested: (!r.interested.is_empty()).then_some(r.interested),
            pinned: r.pinned,
            frozen: r.frozen,
            moving: text::some(&r.moving),
            pending_nve: r.pending.map(|l| l.nve),
            standby: r.standby.map(Into::into),
            pause: r.pause.map(Into::into),
            policy: text::some(&r.policy),
            name: r.name,
            allowed: r.allowed.unwrap_or_default().into(),
            bound: r.bound_ips.into_iter().map(Into::into).collect(),
            bound_macs: r.bound_macs.iter().map(|m| text::mac(*m)).collect(),
            shared: (!r.shared.is_empty()).then(|| r.shared.into_iter().map(Into::into).collect()),
        }
    }
}

impl VmView {
    fn ips(&self) -> Vec<&str> {
        self.ipv4.iter().chain(&self.ipv6).map(String::as_str).collect()
    }

    /// What it shares, and who has each that somebody has.
    fn sharing(&self) -> String {
        let shared: Vec<_> =
            self.allowed.r#virtual.iter().chain(&self.allowed.virtual_macs).cloned().collect();
        let owner = |o: &OwnerView| format!("{} is at VM {}", o.address, o.vm);
        let owners: Vec<_> = self.shared.iter().flatten().map(owner).collect();
        let owners = if owners.is_empty() { String::new() } else { format!(" ({})", owners.join(", ")) };
        if shared.is_empty() { String::new() } else { shared.join(" ") + &owners }
    }

    /// Addresses by its own word, in a cell.
    fn bound_cell(&self) -> String {
        let own = |kind| bound_text(&self.bound, &self.mac, kind);
        let cells = [own("learned"), own("virtual")];
        cells.into_iter().filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The flags, and how much the VM is allowed, in a cell.
    fn flags_and_counts(&self) -> String {
        let flags = Some(self.flags()).filter(|f| !f.is_empty());
        flags.into_iter().chain(self.allowed.counts()).collect::<Vec<_>>().join(", ")
    }

    fn flags(&self) -> String {
        let flags = [(self.router, "router"), (self.pinned, "pinned"), (self.frozen, "frozen")];
        let mut words: Vec<String> = flags.iter().filter(|f| f.0).map(|f| f.1.to_owned()).collect();
        if !self.no_override.is_empty() {
            words.push(format!("no override ({})", self.no_override.join(" ")));
        }
        words.extend(self.moving.as_ref().map(|m| format!("moving ({m})")));
        words.join(", ")
    }
}

impl Report for VmView {
    fn text(&self) -> String {
        let at = |ip: &Option<String>| ip.as_ref().map(|ip| format!(" {ip}")).unwrap_or_default();
        let nve = self.nve.as_ref().map(|n| format!("{n}{}{}", at(&self.nve_ipv4), at(&self.nve_ipv6)));
        facts(&[
            ("VM", self.name.clone()),
            ("VNI", self.vni.to_string()),
            ("MAC", self.mac.clone()),
            ("IPs", self.ips().join(" ")),
            ("learned", bound_text(&self.bound, &self.mac, "learned")),
            ("virtual", bound_text(&self.bound, &self.mac, "virtual")),
            ("virtual MACs", self.bound_macs.join(" ")),
            (
                "addresses",
                Some(self.allowed.addresses.words()).filter(|w| w != "default").unwrap_or_default(),
            ),
            ("may share", self.sharing()),
            ("routes for", self.allowed.routes.join(" ")),
            ("nested MACs", self.allowed.nested.join(" ")),
            ("state", self.state.clone()),
            ("NVE", nve.unwrap_or_default()),
            ("pending", text::or_empty(self.pending_nve.as_ref())),
            ("standby", self.standby.as_ref().map(MirrorView::words).unwrap_or_default()),
            ("paused", self.pause.as_ref().map(PauseView::words).unwrap_or_default()),
            ("version", text::or_empty(self.version.as_ref())),
            ("told", self.interested.as_ref().map(|n| n.join(" ")).unwrap_or_default()),
            ("policy", text::or_empty(self.policy.as_ref())),
            ("flags", self.flags()),
        ])
    }
}

#[derive(Serialize)]
struct VmList {
    vms: Vec<VmView>,
}

impl Report for VmList {
    fn text(&self) -> String {
        let mut t = Table::new(&["NAME", ">VNI", "MAC", "STATE", "NVE", ">VERSION", "IPS", "BOUND", "FLAGS"]);
        for v in &self.vms {
            t.row([
                v.name.clone(),
                v.vni.to_string(),
                v.mac.clone(),
                v.state.clone(),
                text::or_empty(v.nve.as_ref()),
                text::or_empty(v.version.as_ref()),
                v.ips().join(" "),
                v.bound_cell(),
                v.flags_and_counts(),
            ]);
        }
        t.text_or("no VMs; `godwitctl vm define` makes one")
    }
}

#[derive(Serialize)]
struct Changed {
    #[serde(skip)]
    verb: &'static str,
    #[serde(flatten)]
    vm: VmView,
}

impl Report for Changed {
    fn text(&self) -> String {
        format!("VM {} {} (VNI {}, {})\n", self.vm.name, self.verb, self.vm.vni, self.vm.mac)
    }
}

#[derive(Serialize)]
struct Departed {
    vm: String,
    /// What it left.
    nve: String,
    /// Other NVEs that were told.
    told: u32,
}

impl Report for Departed {
    fn text(&self) -> String {
        format!("VM {} has left {}; NVEs told: {}\n", self.vm, self.nve, self.told)
    }
}

async fn departed(nva: &Nva, a: DepartedArgs) -> Result<Departed, Failure> {
    let request = v1::VmDepartedRequest { name: a.name.clone(), nve: a.nve.clone().unwrap_or_default() };
    match nva.settle(nva.client().vm_departed(request)).await {
        Ok(v1::VmDepartedReply { nve, told }) => Ok(Departed { vm: a.name, nve, told }),
        Err(f) => {
            let mut used = vec![(Named::Vm, a.name.as_str())];
            used.extend(a.nve.as_deref().map(|nve| (Named::Nve, nve)));
            Err(suggest::explain(nva, f, &used).await)
        }
    }
}

async fn define(nva: &Nva, a: DefineArgs) -> Result<Changed, Failure> {
    let request = v1::DefineVmRequest {
        name: a.name,
        vn: a.vn.clone(),
        mac: a.mac.to_u64(),
        ipv4: a.ipv4.iter().map(|ip| ip.octets().to_vec()).collect(),
        ipv6: a.ipv6.iter().map(|ip| ip.octets().to_vec()).collect(),
        router: a.router,
        pinned_nve: a.pin.clone().unwrap_or_default(),
        policy: a.policy.clone().unwrap_or_default(),
        allowed: a.more.allowed(&a.learning),
    };
    match nva.settle(nva.client().define_vm(request)).await {
        Ok(vm) => Ok(Changed { verb: "defined", vm: vm.into() }),
        Err(f) => {
            let mut used = vec![(Named::Vn, a.vn.as_str())];
            used.extend(a.policy.as_deref().map(|policy| (Named::Policy, policy)));
            used.extend(a.pin.as_deref().map(|nve| (Named::Nve, nve)));
            Err(suggest::explain(nva, f, &used).await)
        }
    }
}

async fn set(nva: &Nva, a: &SetArgs) -> Result<Changed, Failure> {
    match nva.settle(nva.client().set_vm(a.request())).await {
        Ok(vm) => Ok(Changed { verb: "changed", vm: vm.into() }),
        Err(f) => {
            let mut used = vec![(Named::Vm, a.name.as_str())];
            used.extend(a.policy.as_deref().map(|policy| (Named::Policy, policy)));
            Err(suggest::explain(nva, f, &used).await)
        }
    }
}

async fn order_move(nva: &Nva, a: MoveArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let mode = match a.mode {
        Mode::Hot => v1::MoveMode::Hot,
        Mode::Warm => v1::MoveMode::Warm,
        Mode::Cold => v1::MoveMode::Cold,
    };
    let request = v1::StartMoveRequest {
        vm: a.name.clone(),
        to: a.to.clone(),
        mode: mode.into(),
        id: a.id.unwrap_or_default(),
        accept_interruption: a.accept_interruption,
    };
    match nva.settle(nva.client().start_move(request)).await {
        Ok(record) => moves::ordered(nva, record, a.wait, ctx).await,
        Err(f) => Err(suggest::explain(nva, f, &[(Named::Vm, &a.name), (Named::Nve, &a.to)]).await),
    }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: VmCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    match command {
        VmCommand::Define(args) => ctx.show(&define(&nva, args).await?),
        VmCommand::Set(args) => ctx.show(&set(&nva, &args).await?),
        VmCommand::List { vn } => match nva.vms(vn.as_deref().unwrap_or("")).await {
            Ok(vms) => ctx.show(&VmList { vms: vms.into_iter().map(VmView::from).collect() }),
            Err(f) => {
                let used: Vec<_> = vn.as_deref().map(|vn| (Named::Vn, vn)).into_iter().collect();
                Err(suggest::explain(&nva, f, &used).await)
            }
        },
        VmCommand::Show { name } => {
            match nva.settle(nva.client().show_vm(v1::VmName { name: name.clone() })).await {
                Ok(vm) => ctx.show(&VmView::from(vm)),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Vm, &name)]).await),
            }
        }
        VmCommand::Delete { name } => {
            match nva.settle(nva.client().delete_vm(v1::VmName { name: name.clone() })).await {
                Ok(vm) => ctx.show(&Changed { verb: "deleted", vm: vm.into() }),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Vm, &name)]).await),
            }
        }
        VmCommand::Clear { name } => {
            match nva.settle(nva.client().clear_vm(v1::VmName { name: name.clone() })).await {
                Ok(vm) => ctx.show(&Changed { verb: "cleared", vm: vm.into() }),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Vm, &name)]).await),
            }
        }
        VmCommand::Departed(args) => ctx.show(&departed(&nva, args).await?),
        VmCommand::Move(args) => order_move(&nva, args, ctx).await,
        VmCommand::Mirror(args) => ctx.show(&mirror::mirror(&nva, args).await?),
        VmCommand::Mirrored(args) => ctx.show(&mirror::mirrored(&nva, args).await?),
        VmCommand::Pause(args) => ctx.show(&pause::pause(&nva, args).await?),
        VmCommand::Resume { name } => ctx.show(&pause::resume(&nva, &name).await?),
    }
}
