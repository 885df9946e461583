//! Records, sensible or not.

use godwit_model::{Allowed, Bound, BoundIp, ConnectionPause, PauseEnd};

use super::*;

fn allowed(n: u8, at: u8, seq: u64) -> Allowed {
    let prefix = |third: u8| Prefix::new(Ipv4Addr::new(10, 0, third, 0).into(), 24).unwrap();
    let learning = match seq % 4 {
        0 => None,
        1 => Some(Learning::Recorded),
        more => Some(Learning::Learned(more as u8)),
    };
    Allowed {
        learning: LearningOf { v4: learning, v6: None },
        virtual_ips: (at == 1).then(|| prefix(2)).into_iter().collect(),
        virtual_macs: (at == 2).then(|| inner(n)).into_iter().collect(),
        routes: (at == 3).then(|| prefix(1)).into_iter().collect(),
        nested: at.is_multiple_of(3).then(|| inner(n)).into_iter().collect(),
    }
}

/// What a record says was bound: not always what it allows.
fn bound(n: u8, at: u8, seq: u64) -> Bound {
    let one = BoundIp { ip: some_ip(n, at), mac: some_mac(n, at), is_virtual: at == 1 };
    let ips = seq.is_multiple_of(3).then_some(one).into_iter().collect();
    Bound { ips, macs: (at == 2 && seq.is_multiple_of(2)).then(|| inner(n)).into_iter().collect() }
}

pub(super) fn record(n: u8, at: u8, seq: u64) -> VmRecord {
    let location = (!at.is_multiple_of(4)).then(|| location(at));
    VmRecord {
        name: format!("vm{n}"),
        key: vm(n),
        ipv4: (n != 4).then(|| Ipv4Addr::new(10, 0, 0, n % 4)).into_iter().collect(),
        ipv6: n.is_multiple_of(2).then(|| questions::ipv6(n)).into_iter().collect(),
        bindings: location.into(),
        version: Version { epoch: 1, seq },
        router: false,
        router_pinned: false,
        allowed: allowed(n, at, seq),
        bound: bound(n, at, seq),
        no_override: Vec::new(),
        frozen: false,
        policy: (n % 3 == 2).then(|| format!("policy{}", at % 2)),
        pinned: false,
        moving: at.is_multiple_of(2).then(|| move_id(at)),
        standby: None,
        pause: pause(n, seq),
        former: None,
    }
}

/// Pauses of connections come, end by order or by time, and are forgotten (R54).
fn pause(n: u8, seq: u64) -> Option<ConnectionPause> {
    let treatment = if n.is_multiple_of(2) { WhilePaused::Hold } else { WhilePaused::Drop };
    let ended = match seq % 5 {
        3 => Some((PauseEnd::TimedOut, seq)),
        4 => Some((PauseEnd::Resumed, seq)),
        _ => None,
    };
    (seq % 5 > 1).then_some(ConnectionPause { treatment, since_us: seq / 5, limit_s: 1, ended })
}
