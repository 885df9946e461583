//! What is said of next hops on the underlay (R95).

use std::net::IpAddr;

use godwit_tables::update::PortIdx;

use crate::io::{Level, Outputs, Route, RouteOrigin};
use crate::underlay::{Cut, News, NextHop};
use crate::view::{HopView, RemoteView, RouteView};

use super::Nve;

impl Nve {
    /// Tells people what became of next hops.
    pub(super) fn tell_hops(&mut self, out: &mut Outputs) {
        for news in self.underlay.take_news() {
            match news {
                News::Back { uplink, ip } => {
                    let uplink = self.uplink_name(uplink);
                    out.note(Level::Info, format!("next hop {ip} on {uplink} answers again"));
                }
                News::Silent { uplink, ip, cut } => {
                    let what = format!("next hop {ip} on {} stopped answering", self.uplink_name(uplink));
                    self.tell_cut(what, Some(ip), cut, out);
                }
                News::LinkDown { uplink, cut } => {
                    let what = format!("uplink {} lost its link", self.uplink_name(uplink));
                    self.tell_cut(what, None, cut, out);
                }
            }
        }
    }

    fn tell_cut(&self, what: String, hop: Option<IpAddr>, cut: Cut, out: &mut Outputs) {
        let Cut { go_on, wait, behind } = cut;
        let others =
            if go_on > 0 { format!("; {go_on} locators go on by other next hops") } else { String::new() };
        match (wait, behind) {
            (0, _) => out.note(Level::Warn, format!("{what}{others}")),
            // The NVE itself: nobody stands for it.
            (_, None) if hop.is_some() => {
                out.note(Level::Warn, format!("{what}: packets for it wait{others}"))
            }
            (_, one) => {
                let one = one.map_or(String::new(), |ip| format!(", {ip} among them"));
                let text = format!(
                    "{what}: it was the last next hop to {wait} locators{one}; packets for them wait, and \
                     those that wait too long are dropped (hold_expired); see `godwitctl underlay`{others}"
                );
                out.note(Level::Alarm, text);
            }
        }
    }

    /// The underlay's routes, the configuration's first.
    pub fn routes(&self) -> Vec<RouteView> {
        let origins = [(RouteOrigin::Fixed, false), (RouteOrigin::Kernel, true)];
        let all = origins
            .into_iter()
            .flat_map(|(origin, kernel)| self.underlay.routes(origin).iter().map(move |r| (r, kernel)));
        let hops = |r: &Route| {
            let hop = |h: &crate::io::RouteHop| match h.ip {
                Some(ip) => self.hop_view((h.uplink, ip), 0),
                None => HopView { ip: None, state: "", ..self.hop_view((h.uplink, r.to), 0) },
            };
            r.hops.iter().map(hop).collect()
        };
        all.map(|(r, kernel)| RouteView { to: r.to, len: r.len, kernel, hops: hops(r) }).collect()
    }

    /// The locators that are sent to, and by which next hops.
    pub fn remotes(&self) -> Vec<RemoteView> {
        let view = |(locator, hops): (IpAddr, Vec<(NextHop, usize)>)| RemoteView {
            locator,
            mtu: self.underlay.hop(locator).map(|h| h.mtu),
            hops: hops.into_iter().map(|(via, shares)| self.hop_view(via, shares)).collect(),
        };
        self.underlay.remotes().map(view).collect()
    }

    /// By which next hops a locator is reached.
    pub(super) fn hops_to(&self, locator: IpAddr) -> Vec<HopView> {
        let hops = self.underlay.remote(locator);
        hops.into_iter().map(|(via, shares)| self.hop_view(via, shares)).collect()
    }

    fn hop_view(&self, (uplink, ip): NextHop, shares: usize) -> HopView {
        let n = self.underlay.neighbor((uplink, ip));
        let state = match (self.underlay.has_link(uplink), n) {
            (false, _) => "no link",
            (true, Some(n)) => n.reach.as_str(),
            (true, None) => "",
        };
        HopView { ip: Some(ip), uplink: self.uplink_name(uplink), state, mac: n.and_then(|n| n.mac), shares }
    }

    /// An uplink's name, for people.
    pub(super) fn uplink_name(&self, uplink: PortIdx) -> String {
        self.ports.get(&uplink).map_or_else(|| format!("port {}", uplink.0), |p| p.name.clone())
    }
}
