//! `godwitctl port`: ports of one NVE.

use clap::{Args, Subcommand};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_model::OperState;
use godwit_wire::Mac;
use serde::Serialize;

use super::port_bindings::Bindings;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::{Hand, unexpected};
use crate::table::Table;
use crate::{parse, text};

/// Which NVE a command concerns.
#[derive(Args, Clone, Debug)]
pub struct NveArg {
    /// The NVE, reached through the NVA; with --socket instead, the NVE at that socket.
    #[arg(long, value_name = "NVE", value_parser = parse::name)]
    pub nve: Option<String>,
}

/// Ports of one NVE.
#[derive(Subcommand, Clone, Debug)]
pub enum PortCommand {
    /// List the ports and the VMs behind them.
    #[command(after_help = "Examples:\n  godwitctl port list --nve nve-a\n  godwitctl --socket \
            /run/godwit/nve-a.sock port list")]
    List(NveArg),
    /// Show one port: what its VM may call its own, and what it sent from and might not.
    #[command(
        after_help = "Example:\n  godwitctl port show vm1 --nve nve-a\n\nBindings: recorded addresses, those \
            learned from the VM (DHCP, privacy addresses), virtual ones (VRRP,\nkeepalived, MetalLB), nested \
            MACs, routed prefixes. Refused sources come with the command that allows each."
    )]
    Show(NameArgs),
    /// Add an access port while traffic runs.
    Add(AddArgs),
    /// Remove a port.
    Remove(NameArgs),
    /// Say that the port's VM paused for its handover: the NVE holds what arrives for it.
    #[command(after_help = "Example:\n  godwitctl port pause vm1 --move maintenance-17 --nve nve-a")]
    Pause(PauseArgs),
    /// Say that the port's VM runs here: the NVE delivers and claims it. After a pause: go on.
    Activate(NameArgs),
    /// Say how the port's VM is, in the words of RFC 7666: the port follows.
    State(StateArgs),
    /// Let another worker poll the port; no frame is lost.
    #[command(after_help = "Example:\n  godwitctl port move vm1 --worker 1 --nve nve-a")]
    Move {
        /// The port.
        #[arg(value_parser = parse::name)]
        name: String,
        /// The worker's number.
        #[arg(long)]
        worker: u32,
        /// Which NVE.
        #[command(flatten)]
        target: NveArg,
    },
}

/// A port by name.
#[derive(Args, Clone, Debug)]
pub struct NameArgs {
    /// The port.
    #[arg(value_parser = parse::name)]
    name: String,
    #[command(flatten)]
    target: NveArg,
}

/// Arguments of `port state`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
States and what the port is then:
  running, suspending, shuttingdown   activated
  paused                              activated; what arrives is held, and the VM keeps its place
  migrating                           activated where the VM runs, associated where it comes to
  suspended, resuming                 associated; the VM is withdrawn and keeps its addresses
  crashed                             associated, after 30 s init; the VM is withdrawn
  preparing, shutdown                 init; the VM is withdrawn
  deleted                             removed
  unknown, other                      as before, with an alarm

The first word on a port may be any; then only what follows by RFC 7666, appendix A, is taken.

Examples:
  godwitctl port state vm1 suspending --nve nve-a
  godwitctl --socket /run/godwit/nve-a.sock port state vm1 shutdown")]
pub struct StateArgs {
    /// The port.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The VM's state.
    #[arg(value_name = "STATE", value_parser = parse::oper_state)]
    state: OperState,
    #[command(flatten)]
    target: NveArg,
}

/// Arguments of `port pause`.
#[derive(Args, Clone, Debug)]
pub struct PauseArgs {
    /// The port.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The move that it is for: an NVE that has not heard of it refuses, and does not hold packets for
    /// a move that never comes.
    #[arg(long = "move", value_name = "ID", value_parser = parse::move_id)]
    move_id: Option<String>,
    #[command(flatten)]
    target: NveArg,
}

/// Arguments of `port add`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl port add vm1 --devargs vhost=/run/vm1.sock --vni 5001 --mac 02:00:00:00:00:01 --nve nve-a
  godwitctl port add vm2 --devargs net_tap2,iface=tap2 --vni 5001 --mac 02:00:00:00:00:02 --nve nve-a")]
pub struct AddArgs {
    /// Its name.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The device: vhost=PATH[,mode=server|client][,queues=N][,tso=off] for a guest on a vhost-user socket, a PCI
    /// address, or a virtual device of DPDK's with its arguments.
    #[arg(long)]
    devargs: String,
    /// VNI of the VM's network.
    #[arg(long, value_name = "N", value_parser = parse::vni)]
    vni: u32,
    /// The VM's MAC address.
    #[arg(long, value_parser = parse::vm_mac)]
    mac: Mac,
    /// Receive queues.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    rx_queues: u32,
    /// Stay silent until `port activate`, even if the VM sends.
    #[arg(long)]
    explicit_activation: bool,
    /// The VM comes by post-copy migration: the worker of the switch's `postcopy_core` polls the port, so
    /// that memory that is missing yet stops no other port. `port move` afterwards lets another worker poll it.
    #[arg(long)]
    postcopy: bool,
    /// Largest packet in bytes; without it the NVE's default.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    #[command(flatten)]
    target: NveArg,
}

/// A port for output.
#[derive(Serialize)]
struct PortView {
    name: String,
    number: u32,
    role: String,
    vm: Option<String>,
    vni: Option<u32>,
    vm_mac: Option<String>,
    state: String,
    link_up: bool,
    mtu: u32,
    mac: String,
    worker: u32,
    driver: String,
    devargs: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offloads: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bindings: Option<Bindings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    legs: Vec<LegView>,
}

/// A bond's member for output.
#[derive(Serialize)]
struct LegView {
    device: String,
    link_up: bool,
    carries: bool,
    rx_packets: u64,
    tx_packets: u64,
    losses: u64,
}

impl From<v1::Leg> for LegView {
    fn from(l: v1::Leg) -> LegView {
        LegView {
            device: l.device,
            link_up: l.link_up,
            carries: l.carries,
            rx_packets: l.rx_packets,
            tx_packets: l.tx_packets,
            losses: l.losses,
        }
    }
}

impl LegView {
    fn line(&self) -> String {
        let link = if self.link_up { "up" } else { "down" };
        let carries = match (self.carries, self.link_up) {
            (true, _) => "carries frames",
            (false, true) => "carries nothing (standby, or no partner)",
            (false, false) => "carries nothing",
        };
        let (rx, tx, losses) = (self.rx_packets, self.tx_packets, self.losses);
        format!("leg {}: link {link}, {carries}; received {rx}, sent {tx}, lost {losses} times", self.device)
    }
}

impl From<v1::PortInfo> for PortView {
    fn from(p: v1::PortInfo) -> PortView {
        PortView {
            vm: text::some(&p.vm),
            offloads: text::some(&p.offloads),
            vm_state: text::some(&p.vm_state),
            bindings: p.bindings.map(Bindings::from),
            vlan: (p.vlan != 0).then_some(p.vlan),
            legs: p.legs.into_iter().map(Into::into).collect(),
            vni: p.key.map(|k| k.vni),
            vm_mac: p.key.map(|k| text::mac(k.mac)),
            mac: text::mac(p.mac),
            name: p.name,
            number: p.number,
            role: p.role,
            state: p.state,
            link_up: p.link_up,
            mtu: p.mtu,
            worker: p.worker,
            driver: p.driver,
            devargs: p.devargs,
        }
    }
}

impl PortView {
    /// The port's state, with its VM's where the manager says more than the port shows.
    fn state_shown(&self) -> String {
        match self.vm_state.as_ref().filter(|s| **s != self.state) {
            Some(vm) => format!("{} ({vm})", self.state),
            None => self.state.clone(),
        }
    }
}

impl Report for PortView {
    fn text(&self) -> String {
        let link = if self.link_up { "up" } else { "down" };
        let mut text = format!("{}  {}  {}  link {link}\n", self.name, self.role, self.state_shown());
        if let (Some(vni), Some(mac)) = (self.vni, &self.vm_mac) {
            let vm = self.vm.as_deref().unwrap_or("not in the directory");
            text.push_str(&format!("  VM        {vm} ({vni}/{mac})\n"));
        }
        if let Some(bindings) = &self.bindings {
            text.push_str(&bindings.text());
        }
        text
    }
}

#[derive(Serialize)]
struct PortList {
    ports: Vec<PortView>,
}

impl Report for PortList {
    fn text(&self) -> String {
        let mut t = Table::new(&[
            "NAME", "ROLE", "STATE", "LINK", "VM", ">VNI", "VM MAC", ">MTU", ">WORKER", "DEVICE",
        ]);
        for p in &self.ports {
            t.row([
                p.name.clone(),
                p.role.clone(),
                p.state_shown(),
                if p.link_up { "up" } else { "down" }.into(),
                text::or_empty(p.vm.as_ref()),
                p.vni.map(|v| v.to_string()).unwrap_or_default(),
                text::or_empty(p.vm_mac.as_ref()),
                p.mtu.to_string(),
                p.worker.to_string(),
                p.devargs.clone(),
            ]);
        }
        let mut text = t.text_or("no ports; `godwitctl port add` adds one");
        for p in &self.ports {
            if let Some(offloads) = &p.offloads {
                text.push_str(&format!("{}: {offloads}\n", p.name));
            }
            if let Some(vlan) = p.vlan {
                text.push_str(&format!("{}: VLAN {vlan}\n", p.name));
            }
            for leg in &p.legs {
                text.push_str(&format!("{}: {}\n", p.name, leg.line()));
            }
        }
        text
    }
}

/// An order that was carried out.
#[derive(Serialize)]
struct Done {
    done: String,
}

impl Report for Done {
    fn text(&self) -> String {
        format!("{}\n", self.done)
    }
}

fn no_port(peer: &str, name: &str, names: &[&str]) -> Failure {
    Failure::not_found(format!("{peer} has no port {name}"))
        .remedy(format!("its ports are: {}", if names.is_empty() { "none".into() } else { names.join(", ") }))
}

/// The ports of an NVE.
///
/// # Errors
/// The NVE's refusal, or it could not be asked.
pub async fn ports(hand: &Hand) -> Result<Vec<v1::PortInfo>, Failure> {
    match hand.ask(Ask::ListPorts(v1::ListPorts {})).await? {
        Answer::Ports(list) => Ok(list.ports),
        _ => Err(unexpected(&hand.peer())),
    }
}

/// Gives an order that is answered with a word on its being done.
///
/// # Errors
/// The NVE's refusal, or it could not be asked.
pub async fn order(
    target: &NveArg,
    ask: Ask,
    fallback: String,
    ctx: &mut Context<'_>,
) -> Result<(), Failure> {
    let hand = ctx.link.nve(target.nve.as_deref()).await?;
    let done = match hand.ask(ask).await? {
        Answer::Done(done) => text::some(&done.text).unwrap_or(fallback),
        Answer::Ports(_) => fallback,
        _ => return Err(unexpected(&hand.peer())),
    };
    ctx.show(&Done { done })
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: PortCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let (target, ask, fallback) = match command {
        PortCommand::List(target) => {
            let hand = ctx.link.nve(target.nve.as_deref()).await?;
            let ports = ports(&hand).await?.into_iter().map(PortView::from).collect();
            return ctx.show(&PortList { ports });
        }
        PortCommand::Show(NameArgs { name, target }) => {
            let hand = ctx.link.nve(target.nve.as_deref()).await?;
            let all = ports(&hand).await?;
            let Some(port) = all.iter().find(|p| p.name == name) else {
                let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
                return Err(no_port(&hand.peer(), &name, &names));
            };
            return ctx.show(&PortView::from(port.clone()));
        }
        PortCommand::Add(a) => {
            let fallback = format!("port {} added", a.name);
            let ask = Ask::AddPort(v1::AddPort {
                name: a.name,
                devargs: a.devargs,
                vni: a.vni,
                mac: a.mac.to_u64(),
                rx_queues: a.rx_queues,
                explicit_activation: a.explicit_activation,
                mtu: a.mtu.unwrap_or(0),
                postcopy: a.postcopy,
            });
            (a.target, ask, fallback)
        }
        PortCommand::Remove(NameArgs { name, target }) => {
            let fallback = format!("port {name} removed");
            (target, Ask::RemovePort(v1::RemovePort { name }), fallback)
        }
        PortCommand::Pause(PauseArgs { name, move_id, target }) => {
            let fallback = format!("port {name} paused");
            let move_id = move_id.unwrap_or_default();
            (target, Ask::PausePort(v1::PausePort { name, move_id }), fallback)
        }
        PortCommand::Activate(NameArgs { name, target }) => {
            let fallback = format!("port {name} activated");
            (target, Ask::ActivatePort(v1::ActivatePort { name }), fallback)
        }
        PortCommand::State(StateArgs { name, state, target }) => {
            let fallback = format!("port {name}: its VM is {state}");
            (target, Ask::SetVmState(v1::SetVmState { port: name, state: state as i32 }), fallback)
        }
        PortCommand::Move { name, worker, target } => {
            let fallback = format!("port {name} moved to worker {worker}");
            (target, Ask::MovePort(v1::MovePort { name, worker }), fallback)
        }
    };
    order(&target, ask, fallback, ctx).await
}
