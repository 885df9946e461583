//! keepalived in two VMs at two NVEs: how long its virtual address is silent beyond keepalived's own timers (R92).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Pings, ip, ping, ping_command, read_pings, verdict, vm_set};
use crate::clock::wall_us;
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
/// What a failover may take beyond keepalived's timers: from the backup's word that it is the master to an answer.
const BEYOND: Duration = Duration::from_secs(1);
/// What keepalived says when it becomes the master.
const MASTER_STATE: &str = "Entering MASTER STATE";
/// Pings around a failover. They end with it.
const PING_GAP: Duration = Duration::from_millis(10);
const PINGS: u32 = 6000;
/// Answers before the master dies.
const BEFORE: u32 = 50;
/// keepalived may take so long to settle, and a failover to be over.
const PATIENCE: Duration = Duration::from_secs(30);
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
    let n = start(lab, BACKUP)?;
    let m = start(lab, MASTER)?;
    wait_owner(lab, MASTER.0)?;
    let mut good = failover(lab, m, &n, (1, "m at a dies"))?;
    let m = start(lab, MASTER)?;
    wait_owner(lab, MASTER.0)?;
    good &= verdict(true, "m is back and has the address again");
    good &= move_master(lab, rate)?;
    good &= failover(lab, m, &n, (2, "m at c, after its hot move, dies"))?;
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
    main: PathBuf,
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
    Ok(Keepalived { process, child: file("vrrp.pid"), main: file("pid"), namespace })
}

impl Keepalived {
    /// All that it has said so far.
    fn said(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    /// As when its VM dies: not another word from it.
    fn die(&mut self) -> Result<()> {
        silence_guest(&self.namespace, true)?;
        let child = fs::read_to_string(&self.child).unwrap_or_default();
        self.process.kill9()?;
        if !child.trim().is_empty() {
            let _ = cmd::run("kill", &["-9", child.trim()]);
        }
        // A child that nobody has reaped yet counts as running, and keepalived does not start beside one.
        for file in [&self.child, &self.main] {
            let _ = fs::remove_file(file);
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

/// The master dies for the nth time; how long its address is silent, and what is lost.
fn failover(lab: &mut Lab, mut m: Keepalived, n: &Keepalived, (nth, what): (u8, &str)) -> Result<bool> {
    let command = ping_command(&lab.namespace(CLIENT), None, &VIP.to_string(), PINGS, PING_GAP);
    let pinging = Process::start(&format!("ping-{nth}"), command, &lab.dir)?;
    let answers = || read_pings(&fs::read_to_string(pinging.log()).unwrap_or_default(), PINGS);
    wait(|| answers().received >= BEFORE)?;
    let said = n.said().len();
    m.die()?;
    let died = seconds();
    let is_master = || n.said().get(said..).is_some_and(|new| new.contains(MASTER_STATE));
    let good = if wait(is_master).is_ok() {
        let master = seconds();
        let _ = wait(|| answers().times.iter().any(|t| *t >= master));
        silence(&answers(), (died, master), what)
    } else {
        verdict(false, &format!("{what}: {} is not the master within {PATIENCE:?}", BACKUP.0))
    };
    drop(pinging);
    wait_owner(lab, BACKUP.0)?;
    m.clean_up()?;
    Ok(good)
}

/// As ping tells the time.
fn seconds() -> f64 {
    wall_us() as f64 / 1e6
}

/// Judges a failover by the answers to pings, and by the times when the master died and when the backup was seen to be
/// the master. keepalived's own time is its own matter: on a busy machine its timers run late.
fn silence(pings: &Pings, (died, master): (f64, f64), what: &str) -> bool {
    let gaps = pings.times.windows(2).filter(|w| w[1] >= died).map(|w| (w[1] - w[0], w[1]));
    let longest = gaps.max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((silent, end)) = longest.filter(|_| pings.times.iter().any(|t| *t >= master)) else {
        return verdict(false, &format!("{what}: {VIP} is silent for more than {PATIENCE:?}"));
    };
    let beyond = (end - master).max(0.0);
    let text = format!(
        "{what}: {VIP} is silent for {silent:.2} s (keepalived's own {:.2} s); {beyond:.2} s of them since {} is the \
         master, at most {:.2} s; lost {} of {} pings",
        master_down().as_secs_f64(),
        BACKUP.0,
        BEYOND.as_secs_f64(),
        pings.last.saturating_sub(pings.received),
        pings.last
    );
    verdict(beyond <= BEYOND.as_secs_f64() && silent > 0.1, &text)
}

fn wait(mut done: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !done() {
        ensure!(began.elapsed() < PATIENCE, "{VIP} does not answer within {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The master moves while it is spoken to by its virtual address.
fn move_master(lab: &mut Lab, rate: u32) -> Result<bool> {
    let spec = TrafficSpec { rate, one_way: false, payload: 100, big_every: 0, tcp_rate_bit: 0 };
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
