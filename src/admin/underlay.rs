//! Routes and next hops, for operators (R95).

use godwit_api::v1::{self, admin_response::Kind as Answer};
use godwit_control::view::{HopView, RemoteView, RouteView, StrangerView};

use crate::switch::Switch;

/// What there is.
pub fn report(s: &Switch) -> Answer {
    let mut routes: Vec<v1::UnderlayRoute> = s.nve.routes().into_iter().map(route).collect();
    routes.extend(s.ignored_routes.iter().map(|i| v1::UnderlayRoute {
        to: i.to.clone(),
        origin: "ignored".into(),
        next_hops: Vec::new(),
        why: i.why.clone(),
    }));
    Answer::Underlay(v1::UnderlayReport {
        nve: s.config.nve.id.clone(),
        locators: Some(s.nve.locators().into()),
        routes,
        remotes: s.nve.remotes().into_iter().map(remote).collect(),
        unknown_senders: s.nve.unknown_senders().into_iter().map(stranger).collect(),
    })
}

/// `10.0.1.1%up0`.
pub fn name(h: &HopView) -> String {
    h.ip.map_or_else(|| h.uplink.clone(), |ip| format!("{ip}%{}", h.uplink))
}

fn route(r: RouteView) -> v1::UnderlayRoute {
    v1::UnderlayRoute {
        to: format!("{}/{}", r.to, r.len),
        origin: if r.kernel { "kernel" } else { "fixed" }.into(),
        next_hops: r.hops.into_iter().map(next_hop).collect(),
        why: String::new(),
    }
}

fn remote(r: RemoteView) -> v1::RemoteLocator {
    v1::RemoteLocator {
        locator: r.locator.to_string(),
        mtu: r.mtu.unwrap_or(0).into(),
        next_hops: r.hops.into_iter().map(next_hop).collect(),
    }
}

fn stranger(s: StrangerView) -> v1::UnknownSender {
    v1::UnknownSender { ip: s.ip.to_string(), vni: s.vni.get(), frames: s.frames, ago_ms: s.ago_ms }
}

fn next_hop(h: HopView) -> v1::NextHop {
    v1::NextHop {
        ip: h.ip.map_or_else(String::new, |ip| ip.to_string()),
        uplink: h.uplink,
        state: h.state.into(),
        mac: h.mac.map_or(0, |m| m.to_u64()),
        shares: h.shares as u32,
    }
}
