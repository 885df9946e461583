//! A guest on a vhost-user port that was away and only answers: killed and started again, or stopped and continued; on
//! a port that activates by itself, and on one that the operator activated.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;

use super::{reached_over_ipv4, said};
use crate::lab::Lab;
use crate::lab::echo::Echo;
use crate::lab::guests::VhostPort;
use crate::lab::vm::VmSpec;

/// A guest reboots.
const AWAY: Duration = Duration::from_secs(5);
/// One that is stopped keeps its link: the switch has asked it in vain by then.
const STOPPED: Duration = Duration::from_secs(13);
/// A guest's program has connected within this time.
const CONNECTS: Duration = Duration::from_secs(60);

/// A port that its VM's answer activates.
pub(super) fn by_itself(lab: &mut Lab) -> Result<bool> {
    let (spec, port) = guest(lab, "vha", 50, false)?;
    let mut echo = start(lab, &spec, &port)?;
    let mut good = said("a vhost-user guest that only answers started", reached_over_ipv4(lab, &spec)?);
    echo.process.kill9()?;
    sleep(AWAY);
    let mut echo = start(lab, &spec, &port)?;
    good &= said("it was killed and started again", reached_over_ipv4(lab, &spec)?);
    echo.process.run(false)?;
    sleep(STOPPED);
    echo.process.run(true)?;
    good &= said("it was stopped and continued", reached_over_ipv4(lab, &spec)?);
    drop(echo);
    lab.unplug_vhost(&port)?;
    Ok(good)
}

/// What the operator activated stays activated over a reboot.
pub(super) fn by_the_operator(lab: &mut Lab) -> Result<bool> {
    let (spec, port) = guest(lab, "vhx", 51, true)?;
    let mut echo = start(lab, &spec, &port)?;
    sleep(Duration::from_secs(3));
    let early = super::answers(lab, &spec)?;
    println!("  nobody activated its port: {}", if early { "REACHED all the same" } else { "not reached" });
    lab.nve(&port.nve)?.admin.ask(Ask::ActivatePort(v1::ActivatePort { name: port.port.clone() }))?;
    let mut good = !early & said("the operator activated its port", reached_over_ipv4(lab, &spec)?);
    echo.process.kill9()?;
    sleep(2 * AWAY);
    let echo = start(lab, &spec, &port)?;
    good &= said("it was away for twice as long", reached_over_ipv4(lab, &spec)?);
    drop(echo);
    lab.unplug_vhost(&port)?;
    Ok(good)
}

/// Starts the guest, and waits until its switch sees its link: from then on it may be found.
fn start(lab: &Lab, spec: &VmSpec, port: &VhostPort) -> Result<Echo> {
    let mut echo = lab.start_echo(spec, port)?;
    let give_up = Instant::now() + CONNECTS;
    while !lab.nve(&port.nve)?.admin.ports()?.iter().any(|p| p.name == port.port && p.link_up) {
        echo.process.check()?;
        ensure!(Instant::now() < give_up, "the guest {} has not connected in {CONNECTS:?}", spec.name);
        sleep(Duration::from_millis(50));
    }
    Ok(echo)
}

fn guest(lab: &mut Lab, name: &str, number: u8, explicit: bool) -> Result<(VmSpec, VhostPort)> {
    let mut spec = VmSpec::numbered(name, number);
    // testpmd answers over IPv4 alone.
    spec.ips.retain(|ip| ip.is_ipv4());
    lab.define_vm(&spec, "")?;
    let port = lab.plug_vhost_for(&spec, "a", explicit)?;
    Ok((spec, port))
}
