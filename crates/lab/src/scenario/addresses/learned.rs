//! A guest adds a privacy address and a leased one by itself, and is reached by link-local addresses (R93).

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{ip, ping, verdict, vm_set};
use crate::lab::Lab;
use crate::lab::topology::GUEST;
use crate::lab::vm::VmSpec;
use crate::mover::{How, hot_move};

const PRIVACY: &str = "2001:db8:64::a5a5:beef";
const LEASED: &str = "203.0.113.77";
/// A learned address may take so long to be known everywhere.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(lab: &mut Lab) -> Result<bool> {
    println!("\nLearned addresses: guest g at a, guest x at c");
    lab.start_vm(VmSpec::numbered("g", 11), "a")?;
    lab.start_vm(VmSpec::numbered("x", 12), "c")?;
    let (g, x) = (lab.namespace("g"), lab.namespace("x"));
    vm_set(lab, "g", &["--addresses", "learned"])?;
    ip(&g, &format!("address add {PRIVACY}/64 dev {GUEST} nodad"))?;
    ip(&g, &format!("address add {LEASED}/24 dev {GUEST}"))?;
    let link_local = format!("{}%{GUEST}", link_local(&g)?);
    // It uses them: as sources of its own packets.
    ping(&g, &format!("{}%{GUEST}", self::link_local(&x)?), 1, Duration::from_millis(10))?;
    let source = ["netns", "exec", &g, "ping", "-c", "1", "-W", "1", "-I", LEASED, "203.0.113.12"];
    crate::cmd::run("ip", &source).map(drop).or_else(|e| verdict_error(&e))?;
    let source = ["netns", "exec", &g, "ping", "-c", "1", "-W", "1", "-I", PRIVACY, "2001:db8:64::12"];
    crate::cmd::run("ip", &source).map(drop).or_else(|e| verdict_error(&e))?;
    let mut good = reached(&x, &[LEASED, PRIVACY, &link_local], "before the move")?;
    let moved = hot_move(lab, "g", "b", "learned-1", How::default())?;
    good &= verdict(moved.done(), "g moves from a to b");
    good &= reached(&x, &[LEASED, PRIVACY, &link_local], "after the move")?;
    let shown = lab.ctl(&["vm", "show", "g"])?;
    good &=
        verdict(shown.contains(PRIVACY) && shown.contains(LEASED), "the directory shows what was learned");
    good &= without_a_record(lab, &x)?;
    Ok(good)
}

/// A VM of which the directory has no address announces itself, moves, and announces itself as its first word there.
fn without_a_record(lab: &mut Lab, x: &str) -> Result<bool> {
    let spec = VmSpec::numbered("n", 13);
    let addresses: Vec<String> = spec.ips.iter().map(ToString::to_string).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    lab.start_unrecorded(spec, "a")?;
    let mut good = reached(x, &addresses, "n without recorded addresses:")?;
    let moved = hot_move(lab, "n", "b", "learned-2", How::default())?;
    good &= verdict(moved.done(), "n moves from a to b");
    good &= reached(x, &addresses, "after its move")?;
    Ok(good)
}

/// The first packet may be the one that binds the address; what counts is what comes after.
fn verdict_error(e: &anyhow::Error) -> Result<()> {
    println!("       ({e:#})");
    Ok(())
}

fn reached(x: &str, targets: &[&str], when: &str) -> Result<bool> {
    let mut good = true;
    for target in targets {
        let began = Instant::now();
        while ping(x, target, 1, Duration::from_millis(10))?.received == 0 && began.elapsed() < PATIENCE {}
        let took = began.elapsed().as_millis();
        let pings = ping(x, target, 20, Duration::from_millis(10))?;
        let text = format!(
            "{when} x reaches {target}: lost {} of {} (first answer {took} ms)",
            pings.lost(),
            pings.sent
        );
        good &= verdict(pings.lost() == 0, &text);
    }
    Ok(good)
}

/// The address that the guest's kernel made.
fn link_local(namespace: &str) -> Result<String> {
    let shown = ip(namespace, &format!("-6 -brief address show dev {GUEST} scope link"))?;
    let address = shown.split_whitespace().find(|w| w.starts_with("fe80:")).unwrap_or_default();
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}
