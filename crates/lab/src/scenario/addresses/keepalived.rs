//! keepalived in two VMs at two NVEs: how long its virtual address is silent beyond keepalived's own timers (R92).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::{Pings, ip, ping, verdict, vm_set};
use crate::cmd;
use crate::lab::Lab;
use crate::lab::process::Process;
use crate::lab::topology::{GUEST, GUEST_MTU, silence_guest};
use crate::lab::vm::VmSpec;
use crate::mover::{How, hot_move};
use crate::scenario::{finish, with_agents};
use crate::traffic::{End, Traffic, TrafficSpec, run as go};

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// Master and backup with their priorities, and who talks to whoever has the address.
const MASTER: (&str, u8) = ("m", 150);
const BACKUP: (&str, u8) = ("n", 100);
const CLIENT: &str = "x";
/// Between advertisements.
const ADVERT: f64 = 0.3;
/// What a failover may take beyond keepalived's timers.
const BEYOND: Duration = Duration::from_secs(1);
/// Pings around a failover.
const PING_GAP: Duration = Duration::from_millis(10);
const PINGS: u32 = 450;
const BEFORE: Duration = Duration::from_millis(700);
/// keepalived may take so long to settle, and a failover to be over.
const PATIENCE: Duration = Duration::from_secs(8);
/// Traffic before and after the move.
const AROUND: Duration = Duration::from_millis(700);

pub(super) fn run(lab: &mut Lab, rate: u32) -> Result<bool> {
    println!(
        "\nkeepalived {}: master m at a, backup n at b, client x at c; one advertisement each {ADVERT} s",
        version()
    );
    lab.start_vm(VmSpec::numbered(MASTER.0, 41), "a")?;
    lab.start_vm(VmSpec::numbered(BACKUP.0, 42), "b")?;
    lab.start_vm(VmSpec::numbered(CLIENT, 43), "c")?;
    for (vm, _) in [MASTER, BACKUP] {
        vm_set(lab, vm, &["--virtual", &format!("{VIP}/32")])?;
    }
    let _n = start(lab, BACKUP)?;
    let m = start(lab, MASTER)?;
    wait_owner(lab, MASTER.0)?;
    let mut good = failover(lab, m, "m at a dies")?;
    let m = start(lab, MASTER)?;
    wait_owner(lab, MASTER.0)?;
    good &= verdict(true, "m is back and has the address again");
    good &= move_master(lab, rate)?;
    good &= failover(lab, m, "m at c, after its hot move, dies")?;
    Ok(good)
}

fn version() -> String {
    let output = std::process::Command::new("keepalived").arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned());
    let text = text.unwrap_or_default();
    text.split_whitespace().find(|w| w.starts_with('v')).unwrap_or("?").trim_start_matches('v').to_owned()
}

/// A VM's keepalived, and where it wrote its process numbers.
struct Keepalived {
    process: Process,
    child: PathBuf,
    namespace: String,
}

fn start(lab: &Lab, (vm, priority): (&str, u8)) -> Result<Keepalived> {
    let file = |what: &str| lab.dir.join(format!("keepalived-{vm}.{what}"));
    let config = format!(
        "global_defs {{\n  vrrp_version 3\n}}\nvrrp_instance godwit {{\n  state BACKUP\n  interface {GUEST}\n  \
         virtual_router_id 51\n  priority {priority}\n  advert_int {ADVERT}\n  \
         virtual_ipaddress {{\n    {VIP}/24\n  }}\n}}\n"
    );
    fs::write(file("conf"), config)?;
    let namespace = lab.namespace(vm);
    let mut command = cmd::in_namespace(&namespace, "keepalived");
    command.args(["-n", "-l", "-D", "-P", "-f"]).arg(file("conf"));
    command.arg("-p").arg(file("pid")).arg("-r").arg(file("vrrp.pid"));
    let process = Process::start(&format!("keepalived-{vm}"), command, &lab.dir)?;
    Ok(Keepalived { process, child: file("vrrp.pid"), namespace })
}

impl Keepalived {
    /// As when its VM dies: not another word from it.
    fn die(&mut self) -> Result<()> {
        silence_guest(&self.namespace, true)?;
        let child = fs::read_to_string(&self.child).unwrap_or_default();
        self.process.kill9()?;
        if !child.trim().is_empty() {
            let _ = cmd::run("kill", &["-9", child.trim()]);
        }
        Ok(())
    }

    /// Its kernel comes up anew, without the address.
    fn clean_up(&self) -> Result<()> {
        let _ = ip(&self.namespace, &format!("address delete {VIP}/24 dev {GUEST}"));
        silence_guest(&self.namespace, false)
    }
}

/// What keepalived itself waits for: three advertisements and the skew of the backup's priority (RFC 9568 section 6.1).
fn master_down() -> Duration {
    let skew = f64::from(u16::from(u8::MAX) + 1 - u16::from(BACKUP.1)) / 256.0 * ADVERT;
    Duration::from_secs_f64(3.0 * ADVERT + skew)
}

/// The master dies; how long its address is silent, and what is lost.
fn failover(lab: &mut Lab, mut m: Keepalived, what: &str) -> Result<bool> {
    let client = lab.namespace(CLIENT);
    let pings: Pings = thread::scope(|s| {
        let pings = s.spawn(|| ping(&client, &VIP.to_string(), PINGS, PING_GAP));
        sleep(BEFORE);
        m.die()?;
        pings.join().map_err(|_| anyhow!("the pinging thread panicked"))?
    })?;
    let most = master_down() + BEYOND;
    let text = format!(
        "{what}: {VIP} is silent for {:.2} s (keepalived's own {:.2} s, at most {:.2} s); lost {} of {} pings",
        pings.gap.as_secs_f64(),
        master_down().as_secs_f64(),
        most.as_secs_f64(),
        pings.lost(),
        pings.sent
    );
    let good =
        verdict(pings.gap <= most && pings.gap > Duration::from_millis(100) && pings.received > 0, &text);
    wait_owner(lab, BACKUP.0)?;
    m.clean_up()?;
    Ok(good)
}

/// The master moves while it is spoken to by its virtual address.
fn move_master(lab: &mut Lab, rate: u32) -> Result<bool> {
    let spec = TrafficSpec { rate, payload: 100, big_every: 0, tcp_rate_bit: 0 };
    let (m_at, x_at) = (SocketAddr::new(IpAddr::V4(VIP), 0), lab.address_of(CLIENT, false)?);
    let traffic = with_agents(lab, (MASTER.0, CLIENT), |m, x| {
        let mut m = End { agent: m, address: m_at };
        let mut x = End { agent: x, address: x_at };
        Traffic::open(1, spec, GUEST_MTU, &mut m, &mut x)
    })?;
    with_agents(lab, (MASTER.0, CLIENT), |m, x| go(m).and_then(|()| go(x)))?;
    sleep(AROUND);
    let moved = hot_move(lab, MASTER.0, "c", "keepalived-1", How::default())?;
    sleep(AROUND);
    let talk = finish(lab, &traffic, (MASTER.0, CLIENT))?;
    let (there, back) = (&talk.a_to_b, &talk.b_to_a);
    let text = format!(
        "m moves from a to c in {:.0} ms: lost {} of {} from {VIP}, {} of {} to it",
        moved.pause_ms(),
        there.lost,
        there.sent,
        back.lost,
        back.sent
    );
    let good = verdict(moved.done() && there.lost + back.lost == 0 && back.received > 0, &text);
    wait_owner(lab, MASTER.0)?;
    Ok(good)
}

/// Waits until a VM's kernel has the address, nobody else's, and the client reaches it.
fn wait_owner(lab: &Lab, vm: &str) -> Result<()> {
    let has = |vm: &str| -> Result<bool> {
        let shown = ip(&lab.namespace(vm), &format!("-brief address show dev {GUEST}"))?;
        Ok(shown.contains(&VIP.to_string()))
    };
    let began = Instant::now();
    loop {
        let reached = ping(&lab.namespace(CLIENT), &VIP.to_string(), 3, PING_GAP)?.lost() == 0;
        let shown = lab.ctl(&["vm", "show", vm])?;
        if has(vm)? && reached && shown.contains(&VIP.to_string()) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "VM {vm} has not got {VIP} within {PATIENCE:?}; {shown}");
        sleep(Duration::from_millis(50));
    }
}
