//! `godwitctl underlay`: routes, next hops and the ways to other NVEs (R95).

use clap::Args;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::port::NveArg;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::unexpected;
use crate::table::{Table, facts};
use crate::text;

/// Shares that a locator's flows are divided into.
const SHARES: u32 = 64;

/// Arguments of `underlay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl underlay --nve nve-a
  godwitctl --socket /run/godwit/nve-a.sock underlay

Of several next hops towards one locator each gets its part of the flows (ECMP); FLOWS is how many of all.
Origins: fixed (the configuration's), kernel (a routing daemon's, FRR say), ignored (of the kernel, and not used).
States: reachable, probe (being asked), incomplete (does not answer: no flows), stale, permanent, no link.")]
pub struct UnderlayArgs {
    #[command(flatten)]
    target: NveArg,
}

#[derive(Serialize)]
struct HopView {
    ip: Option<String>,
    uplink: String,
    state: Option<String>,
    mac: Option<String>,
    /// Of 64.
    shares: u32,
}

impl From<v1::NextHop> for HopView {
    fn from(h: v1::NextHop) -> HopView {
        HopView {
            ip: text::some(&h.ip),
            uplink: h.uplink,
            state: text::some(&h.state),
            mac: (h.mac != 0).then(|| text::mac(h.mac)),
            shares: h.shares,
        }
    }
}

#[derive(Serialize)]
struct RouteView {
    to: String,
    origin: String,
    next_hops: Vec<HopView>,
    why: Option<String>,
}

#[derive(Serialize)]
struct RemoteView {
    locator: String,
    /// Null: no next hop answers.
    mtu: Option<u32>,
    next_hops: Vec<HopView>,
}

/// Somebody who sends VXLAN to a VN that its NVE has no part in.
#[derive(Serialize)]
struct StrangerView {
    ip: String,
    vni: u32,
    frames: u64,
    ago_ms: u64,
}

#[derive(Serialize)]
struct UnderlayView {
    nve: String,
    ipv4: Option<String>,
    ipv6: Option<String>,
    routes: Vec<RouteView>,
    remotes: Vec<RemoteView>,
    /// Most frames first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_senders: Vec<StrangerView>,
}

impl From<v1::UnderlayReport> for UnderlayView {
    fn from(u: v1::UnderlayReport) -> UnderlayView {
        let locators = u.locators.unwrap_or_default();
        let hops = |all: Vec<v1::NextHop>| all.into_iter().map(HopView::from).collect();
        let route = |r: v1::UnderlayRoute| RouteView {
            to: r.to,
            origin: r.origin,
            next_hops: hops(r.next_hops),
            why: text::some(&r.why),
        };
        let remote = |r: v1::RemoteLocator| RemoteView {
            locator: r.locator,
            mtu: (r.mtu != 0).then_some(r.mtu),
            next_hops: hops(r.next_hops),
        };
        let stranger =
            |s: v1::UnknownSender| StrangerView { ip: s.ip, vni: s.vni, frames: s.frames, ago_ms: s.ago_ms };
        UnderlayView {
            nve: u.nve,
            ipv4: text::locator(&locators.v4),
            ipv6: text::locator(&locators.v6),
            routes: u.routes.into_iter().map(route).collect(),
            remotes: u.remotes.into_iter().map(remote).collect(),
            unknown_senders: u.unknown_senders.into_iter().map(stranger).collect(),
        }
    }
}

impl UnderlayView {
    fn remotes(&self) -> String {
        let mut t = Table::new(&["LOCATOR", ">MTU", "NEXT HOP", "UPLINK", "STATE", "MAC", ">FLOWS"]);
        for r in &self.remotes {
            let mtu = r.mtu.map(|m| m.to_string()).unwrap_or_default();
            if r.next_hops.is_empty() {
                let nowhere = "no route leads there".to_owned();
                t.row([
                    r.locator.clone(),
                    mtu,
                    nowhere,
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                ]);
                continue;
            }
            for h in &r.next_hops {
                let flows =
                    if h.shares == 0 { "none".to_owned() } else { format!("{}%", h.shares * 100 / SHARES) };
                t.row([
                    r.locator.clone(),
                    mtu.clone(),
                    text::or_empty(h.ip.as_ref()),
                    h.uplink.clone(),
                    text::or_empty(h.state.as_ref()),
                    text::or_empty(h.mac.as_ref()),
                    flows,
                ]);
            }
        }
        t.text_or("nothing is sent to any locator")
    }

    /// Nothing where there are none.
    fn strangers(&self) -> Option<String> {
        let mut t = Table::new(&["UNKNOWN SENDER", ">VNI", ">FRAMES DROPPED", ">LAST"]);
        for s in &self.unknown_senders {
            t.row([s.ip.clone(), s.vni.to_string(), s.frames.to_string(), text::span_ms(s.ago_ms) + " ago"]);
        }
        (!self.unknown_senders.is_empty()).then(|| t.text_or(""))
    }

    fn routes(&self) -> String {
        let mut t = Table::new(&["ROUTE", "ORIGIN", "BY"]);
        for r in &self.routes {
            let by = |h: &HopView| match (&h.ip, &h.state) {
                (Some(ip), Some(state)) => format!("{ip}%{} ({state})", h.uplink),
                (Some(ip), None) => format!("{ip}%{}", h.uplink),
                (None, _) => format!("on the link of {}", h.uplink),
            };
            let hops: Vec<String> = r.next_hops.iter().map(by).collect();
            let by = match &r.why {
                Some(why) => why.clone(),
                None if hops.is_empty() => "nowhere".into(),
                None => hops.join(", "),
            };
            t.row([r.to.clone(), r.origin.clone(), by]);
        }
        t.text_or("no routes besides the uplinks' prefixes and gateways")
    }
}

impl Report for UnderlayView {
    fn text(&self) -> String {
        let facts = facts(&[
            ("NVE", self.nve.clone()),
            ("IPv4 locator", text::or_empty(self.ipv4.as_ref())),
            ("IPv6 locator", text::or_empty(self.ipv6.as_ref())),
        ]);
        let mut parts = vec![facts, self.remotes(), self.routes()];
        parts.extend(self.strangers());
        parts.join("\n")
    }
}

/// Runs the command.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(a: &UnderlayArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let hand = ctx.link.nve(a.target.nve.as_deref()).await?;
    match hand.ask(Ask::GetUnderlay(v1::GetUnderlay {})).await? {
        Answer::Underlay(report) => ctx.show(&UnderlayView::from(report)),
        _ => Err(unexpected(&hand.peer())),
    }
}
