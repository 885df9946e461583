//! What the VM of a port may call its own, and what it was refused.

use godwit_api::v1;
use serde::Serialize;

use crate::text;

/// Bindings for output.
#[derive(Serialize)]
pub struct Bindings {
    recorded: Vec<String>,
    learned: Vec<Bound>,
    #[serde(rename = "virtual")]
    virtual_ips: Vec<Bound>,
    virtual_macs: Vec<String>,
    nested: Vec<String>,
    routes: Vec<String>,
    may_share: Vec<String>,
    may_share_macs: Vec<String>,
    router: bool,
    /// Addresses that it may still bind by its own word; absent where it is bound to none.
    room: Room,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Bound {
    ip: String,
    mac: String,
}

#[derive(Serialize)]
struct Room {
    v4: Option<u32>,
    v6: Option<u32>,
    link_local: Option<u32>,
}

#[derive(Serialize)]
struct Refused {
    mac: String,
    ip: Option<String>,
    why: String,
    allow: String,
    count: u64,
    ago_s: u64,
}

impl From<v1::PortBindings> for Bindings {
    fn from(b: v1::PortBindings) -> Bindings {
        let allowed = b.allowed.unwrap_or_default();
        let macs = |all: &[u64]| all.iter().map(|m| text::mac(*m)).collect();
        let bound = |is_virtual| {
            let all = b.bound.iter().filter(move |b| b.is_virtual == is_virtual);
            all.map(|b| Bound { ip: text::ip(&b.ip), mac: text::mac(b.mac) }).collect()
        };
        let refused = b.refused.iter().map(|r| Refused {
            mac: text::mac(r.mac),
            ip: text::locator(&r.ip),
            why: r.why.clone(),
            allow: r.allow.clone(),
            count: r.count,
            ago_s: r.ago_ms / 1000,
        });
        Bindings {
            recorded: text::ips(&b.recorded),
            learned: bound(false),
            virtual_ips: bound(true),
            virtual_macs: macs(&b.macs),
            nested: macs(&allowed.nested),
            routes: allowed.routes,
            may_share: allowed.virtual_ips,
            may_share_macs: macs(&allowed.virtual_macs),
            router: b.router,
            room: Room { v4: b.room_v4, v6: b.room_v6, link_local: b.room_link_local },
            refused: refused.collect(),
        }
    }
}

impl Bindings {
    /// One line for each kind that there is.
    pub fn text(&self) -> String {
        let shown =
            |all: &[Bound]| -> Vec<String> { all.iter().map(|b| format!("{} at {}", b.ip, b.mac)).collect() };
        let router =
            if self.router { vec![String::from("forwards for every other network")] } else { Vec::new() };
        let lines = [
            ("recorded", self.recorded.clone()),
            ("learned", shown(&self.learned)),
            ("virtual", [shown(&self.virtual_ips), self.virtual_macs.clone()].concat()),
            ("may share", [self.may_share.clone(), self.may_share_macs.clone()].concat()),
            ("nested", self.nested.clone()),
            ("routes", self.routes.clone()),
            ("router", router),
            ("room", self.room()),
        ];
        let mut text = String::new();
        for (name, what) in lines.iter().filter(|(_, what)| !what.is_empty()) {
            text.push_str(&format!("  {name:<10}{}\n", what.join(", ")));
        }
        for r in &self.refused {
            let source = match &r.ip {
                Some(ip) => format!("{ip} at {}", r.mac),
                None => r.mac.clone(),
            };
            let times = if r.count == 1 { String::from("once") } else { format!("{} times", r.count) };
            text.push_str(&format!("  refused   {source}: {}; {times}, last {} s ago\n", r.why, r.ago_s));
            if !r.allow.is_empty() {
                text.push_str(&format!("            {}\n", r.allow));
            }
        }
        text
    }

    fn room(&self) -> Vec<String> {
        let families = [("IPv4", self.room.v4), ("IPv6", self.room.v6), ("link-local", self.room.link_local)];
        let bound = families.iter().filter_map(|(name, room)| room.map(|n| format!("{n} {name}")));
        let bound: Vec<String> = bound.collect();
        if bound.is_empty() { vec![String::from("bound to no address")] } else { bound }
    }
}
