//! `godwit-lab`: builds a data center out of network namespaces and runs scenarios in it.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use godwit_api::v1::ListMovesRequest;
use godwit_lab::agent;
use godwit_lab::lab::nve::Binaries;
use godwit_lab::lab::{Lab, cleanup, take_down};
use godwit_lab::mover::{How, hot_move, timeline};
use godwit_lab::scenario::addresses::Addresses;
use godwit_lab::scenario::bare_metal::BareMetal;
use godwit_lab::scenario::compare::Compare;
use godwit_lab::scenario::drain::Drain;
use godwit_lab::scenario::fabric::Fabric;
use godwit_lab::scenario::found::Found;
use godwit_lab::scenario::frozen::FrozenSender;
use godwit_lab::scenario::guest::GuestTalk;
use godwit_lab::scenario::guest_memory::GuestMemory;
use godwit_lab::scenario::guest_tso::GuestTso;
use godwit_lab::scenario::guests::ManyGuests;
use godwit_lab::scenario::hot_move::{HotMove, LATE_COUNTS};
use godwit_lab::scenario::interop::Interop;
use godwit_lab::scenario::interrupted::{Cold, Warm};
use godwit_lab::scenario::libvirt::Libvirt;
use godwit_lab::scenario::multicast::Multicast;
use godwit_lab::scenario::nva_kill::NvaKill;
use godwit_lab::scenario::placement::Placement;
use godwit_lab::scenario::report::MoveLine;
use godwit_lab::scenario::routed::Routed;
use godwit_lab::scenario::router_role::RouterRole;
use godwit_lab::scenario::split_brain::SplitBrain;
use godwit_lab::scenario::stalls::Stalls;

/// A data center on one machine: switches, an NVA and VMs in network namespaces
#[derive(Parser)]
#[command(name = "godwit-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Move a VM between switches under load, for every combination of IP versions
    HotMove(HotMove),
    /// Kill the NVA in the middle of moves and start it again
    NvaKill(NvaKill),
    /// Cut a sender off from the NVA, move its peer, and see what is lost and how it learns of it
    FrozenSender(FrozenSender),
    /// Let the same VM come up at two switches, while the first lives and when it hangs
    SplitBrain(SplitBrain),
    /// Let a guest, a switch or the NVA stand still in the midst of moves, and see whether every VM is found again
    Stalls(Stalls),
    /// Drain switches of hundreds of VMs that talk, the command, the NVA or a switch killed half-way
    Drain(Drain),
    /// Lose VMs that only answer, and see whether each is reached again
    Found(Found),
    /// Move a VM between switches under load, in one subnet of a routing domain while its peer is in another
    Routed(Routed),
    /// Move the receiver of streams to multicast groups, and see for whom copies are made
    Multicast(Multicast),
    /// Let a Linux host learn its default route from a router at another switch, and see what keeps and ends it
    RouterRole(RouterRole),
    /// Let VMs have other addresses than their definition lists: keepalived, learned ones, nested VMs, pods
    Addresses(Addresses),
    /// Let receive queues change workers while two VMs talk
    Placement(Placement),
    /// Lose a leg of a bond, or an uplink, while VMs talk to another's NVE behind it
    Fabric(Fabric),
    /// Shut a VM down and start it at another switch, where its state was mirrored
    Warm(Warm),
    /// Shut a VM down and start it at another switch, to which its state is sent
    Cold(Cold),
    /// Talk to Linux's own vxlan device and let tshark look at every frame
    Interop(Interop),
    /// Start a Linux guest under QEMU on a vhost-user port, talk to it and migrate it
    Guest(GuestTalk),
    /// Run hundreds of guests at one switch, most of whom leave and come again while others talk
    Guests(ManyGuests),
    /// Have libvirt migrate a Linux guest between two hosts with Godwit's hook
    Libvirt(Libvirt),
    /// Migrate a Linux guest without any switch, again and again, and compare its memory at both ends
    GuestMemory(GuestMemory),
    /// Migrate the same guest over Godwit and over OVS-DPDK
    Compare(Compare),
    /// Have Linux guests leave checksums and segmentation to the switch, and look at every frame
    GuestTso(GuestTso),
    /// Run the switch on network cards of an emulated machine, bound to vfio-pci behind its IOMMU
    BareMetal(BareMetal),
    /// Move a VM of a standing lab to another switch, as its hypervisor
    Move {
        /// The lab's id
        lab: String,
        /// The VM
        vm: String,
        /// The switch it goes to
        to: String,
    },
    /// List the labs that stand on this machine
    List,
    /// Take a lab down that was left standing
    Down {
        /// Its id, or `all`
        id: String,
    },
    /// The software inside a lab's VMs; started by the lab
    #[command(hide = true)]
    Agent {
        /// Socket to serve, or with --device the end of a serial line
        socket: PathBuf,
        /// The path is a device
        #[arg(long)]
        device: bool,
    },
    /// Send a file over TCP in writes of 64 KiB; started by the lab
    #[command(hide = true)]
    BulkSend {
        /// Address and port of a `bulk-receive`
        to: SocketAddr,
        /// The file
        file: PathBuf,
    },
    /// Take one file over TCP; started by the lab
    #[command(hide = true)]
    BulkReceive {
        /// The port
        port: u16,
        /// Where it goes
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("godwit-lab: {e:#}");
            ExitCode::from(2)
        }
    }
}

impl Command {
    /// False where a scenario found fault.
    fn run(self) -> Result<bool> {
        if let Command::Agent { socket, device } = &self {
            let serve = if *device { agent::device::serve } else { agent::serve };
            return serve(socket).map(|()| true);
        }
        match &self {
            Command::BulkSend { to, file } => return agent::bulk::send(*to, file).map(|()| true),
            Command::BulkReceive { port, file } => return agent::bulk::receive(*port, file).map(|()| true),
            _ => {}
        }
        cleanup::on_signals()?;
        match self {
            Command::HotMove(scenario) => scenario.run(),
            Command::NvaKill(scenario) => scenario.run(),
            Command::FrozenSender(scenario) => scenario.run(),
            Command::SplitBrain(scenario) => scenario.run(),
            Command::Stalls(scenario) => scenario.run(),
            Command::Drain(scenario) => scenario.run(),
            Command::Found(scenario) => scenario.run(),
            Command::Routed(scenario) => scenario.run(),
            Command::Multicast(scenario) => scenario.run(),
            Command::RouterRole(scenario) => scenario.run(),
            Command::Addresses(scenario) => scenario.run(),
            Command::Placement(scenario) => scenario.run(),
            Command::Fabric(scenario) => scenario.run(),
            Command::Warm(scenario) => scenario.run(),
            Command::Cold(scenario) => scenario.run(),
            Command::Interop(scenario) => scenario.run(),
            Command::Guest(scenario) => scenario.run(),
            Command::Guests(scenario) => scenario.run(),
            Command::Libvirt(scenario) => scenario.run(),
            Command::GuestMemory(scenario) => scenario.run(),
            Command::Compare(scenario) => scenario.run(),
            Command::GuestTso(scenario) => scenario.run(),
            Command::BareMetal(scenario) => scenario.run(),
            Command::Move { lab, vm, to } => move_standing(&lab, &vm, &to),
            Command::List => {
                cleanup::labs().iter().for_each(|id| println!("{id}  {}", cleanup::directory(id).display()));
                Ok(true)
            }
            Command::Down { id } => {
                let ids = if id == "all" { cleanup::labs() } else { vec![id] };
                ids.iter().try_for_each(|id| take_down(id))?;
                println!("taken down: {}", ids.join(" "));
                Ok(true)
            }
            Command::Agent { .. } | Command::BulkSend { .. } | Command::BulkReceive { .. } => Ok(true),
        }
    }
}

/// Moves a VM of a lab that stands, and shows the move's timeline.
fn move_standing(id: &str, vm: &str, to: &str) -> Result<bool> {
    let mut lab = Lab::adopt(id, &Binaries::find(None)?)?;
    let nva = lab.nva.clone();
    let moves = nva.operator.list_moves(ListMovesRequest::default())?.moves;
    let n = 1 + moves.iter().filter(|m| m.id.starts_with("play-")).count();
    let result = hot_move(&mut lab, vm, to, &format!("play-{n}"), How::default());
    // Written whatever came of it: a port more or less has to be known the next time.
    lab.keep()?;
    let mut moved = result?;
    std::thread::sleep(LATE_COUNTS);
    moved.refresh(&nva)?;
    println!("{}\n\n{}", MoveLine::new(n as u32, &moved).text(None), timeline(&moved.record));
    Ok(moved.done())
}
