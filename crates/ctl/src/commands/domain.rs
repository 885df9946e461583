//! `godwitctl domain`: routing domains and their static routes.

use clap::Subcommand;
use godwit_api::v1;
use godwit_wire::Prefix;
use serde::Serialize;

use super::vn_view::VnView;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::parse;
use crate::suggest::{self, Named};
use crate::table::{Table, facts};
use crate::text;

/// Routing domains: VNs whose VMs reach each other by routing.
#[derive(Subcommand, Clone, Debug)]
pub enum DomainCommand {
    /// Create a routing domain; VNs join it as they are created or later (`vn create --domain`, `vn set --domain`).
    #[command(after_help = "\
Example:
  godwitctl domain create shop
  godwitctl vn create web --vni 5002 --domain shop --subnet 10.1.0.0/24,gateway=10.1.0.1
  godwitctl vn create db --vni 5003 --domain shop --subnet 10.2.0.0/24,gateway=10.2.0.1")]
    Create {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// List the routing domains.
    List,
    /// Show one routing domain with its VNs and its routes.
    Show {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Delete a routing domain that joins no VNs.
    Delete {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Static routes of a routing domain.
    #[command(subcommand)]
    Route(RouteCommand),
}

/// Static routes: prefixes that go by way of a VM.
#[derive(Subcommand, Clone, Debug)]
pub enum RouteCommand {
    /// Route a prefix to a VM of the domain; a route that is there gets this next hop.
    #[command(after_help = "\
The VM must be allowed to send from the prefix: `godwitctl vm set VM --route PREFIX`, or `--router` for any, as a
default route needs it. A prefix may contain subnets of the domain; it may not be one or a part of one.

Examples:
  godwitctl vm set node1 --route 10.244.1.0/24
  godwitctl domain route add shop 10.244.1.0/24 --via node1
  godwitctl domain route add shop 0.0.0.0/0 --via firewall")]
    Add {
        /// Name of the domain.
        #[arg(value_parser = parse::name)]
        domain: String,
        /// Where packets are for.
        #[arg(value_parser = parse::prefix)]
        prefix: Prefix,
        /// The VM that routes them on.
        #[arg(long, value_name = "VM", value_parser = parse::name)]
        via: String,
    },
    /// Remove a static route.
    Remove {
        /// Name of the domain.
        #[arg(value_parser = parse::name)]
        domain: String,
        /// Its prefix.
        #[arg(value_parser = parse::prefix)]
        prefix: Prefix,
    },
}

/// A route for output.
#[derive(Serialize)]
struct RouteView {
    prefix: String,
    /// Name of the VM that is the next hop.
    via: String,
    vn: String,
    mac: String,
}

impl From<v1::RouteInfo> for RouteView {
    fn from(r: v1::RouteInfo) -> RouteView {
        let (_, mac) = text::key(r.via.as_ref());
        RouteView { prefix: r.prefix, via: r.vm, vn: r.vn, mac }
    }
}

/// A domain for output.
#[derive(Serialize)]
struct DomainView {
    name: String,
    id: u32,
    gateway_mac: String,
    vns: Vec<VnView>,
    route_count: u32,
    /// Of `domain show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<RouteView>>,
}

impl DomainView {
    fn of(d: v1::DomainInfo, with_routes: bool) -> DomainView {
        DomainView {
            name: d.name,
            id: d.id,
            gateway_mac: text::mac(d.gateway_mac),
            vns: d.vns.into_iter().map(VnView::from).collect(),
            route_count: d.route_count,
            routes: with_routes.then(|| d.routes.into_iter().map(RouteView::from).collect()),
        }
    }

    fn vms(&self) -> u32 {
        self.vns.iter().map(VnView::vms).sum()
    }
}

impl Report for DomainView {
    fn text(&self) -> String {
        let mut text = facts(&[
            ("domain", self.name.clone()),
            ("gateway MAC", self.gateway_mac.clone()),
            ("VNs", self.vns.len().to_string()),
            ("VMs", self.vms().to_string()),
            ("static routes", self.route_count.to_string()),
        ]);
        let mut vns = Table::new(&["VN", ">VNI", "MODE", "SUBNETS", ">VMS"]);
        for v in &self.vns {
            vns.row([v.name.clone(), v.vni.to_string(), v.mode().into(), v.prefixes(), v.vms().to_string()]);
        }
        if !vns.is_empty() {
            text += &format!("\n{}", vns.text());
        }
        let mut routes = Table::new(&["ROUTE", "VIA", "VN", "MAC"]);
        for r in self.routes.iter().flatten() {
            routes.row([r.prefix.clone(), r.via.clone(), r.vn.clone(), r.mac.clone()]);
        }
        if !routes.is_empty() {
            text += &format!("\n{}", routes.text());
        }
        text
    }
}

#[derive(Serialize)]
struct DomainList {
    domains: Vec<DomainView>,
}

impl Report for DomainList {
    fn text(&self) -> String {
        let mut t = Table::new(&["NAME", "GATEWAY MAC", ">ROUTES", ">VMS", "VNS"]);
        for d in &self.domains {
            let vns = d.vns.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(" ");
            t.row([
                d.name.clone(),
                d.gateway_mac.clone(),
                d.route_count.to_string(),
                d.vms().to_string(),
                vns,
            ]);
        }
        t.text_or("no routing domains; `godwitctl domain create` makes one")
    }
}

/// A domain that was created or deleted.
#[derive(Serialize)]
struct Changed {
    #[serde(skip)]
    verb: &'static str,
    #[serde(flatten)]
    domain: DomainView,
}

impl Report for Changed {
    fn text(&self) -> String {
        format!("routing domain {} {}\n", self.domain.name, self.verb)
    }
}

/// A route that was added or removed.
#[derive(Serialize)]
struct RouteChanged {
    #[serde(skip)]
    verb: &'static str,
    domain: String,
    #[serde(flatten)]
    route: RouteView,
}

impl Report for RouteChanged {
    fn text(&self) -> String {
        let r = &self.route;
        format!(
            "route {} by VM {} (VN {}) {} in routing domain {}\n",
            r.prefix, r.via, r.vn, self.verb, self.domain
        )
    }
}

fn route_changed(verb: &'static str, r: v1::RouteInfo) -> RouteChanged {
    RouteChanged { verb, domain: r.domain.clone(), route: r.into() }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: DomainCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    let named = |name: &str| v1::DomainName { name: name.into() };
    let view = |d| DomainView::of(d, false);
    match command {
        DomainCommand::Create { name } => {
            let d = nva.settle(nva.client().create_domain(named(&name))).await?;
            ctx.show(&Changed { verb: "created", domain: view(d) })
        }
        DomainCommand::List => {
            let domains = nva.domains().await?.into_iter().map(view).collect();
            ctx.show(&DomainList { domains })
        }
        DomainCommand::Show { name } => match nva.settle(nva.client().show_domain(named(&name))).await {
            Ok(d) => ctx.show(&DomainView::of(d, true)),
            Err(f) => Err(suggest::explain(&nva, f, &[(Named::Domain, &name)]).await),
        },
        DomainCommand::Delete { name } => match nva.settle(nva.client().delete_domain(named(&name))).await {
            Ok(d) => ctx.show(&Changed { verb: "deleted", domain: view(d) }),
            Err(f) => Err(suggest::explain(&nva, f, &[(Named::Domain, &name)]).await),
        },
        DomainCommand::Route(RouteCommand::Add { domain, prefix, via }) => {
            let used = [(Named::Domain, domain.as_str()), (Named::Vm, via.as_str())];
            let (prefix, domain, via) = (prefix.to_string(), domain.clone(), via.clone());
            let request = v1::AddRouteRequest { domain, prefix, via };
            match nva.settle(nva.client().add_route(request)).await {
                Ok(r) => ctx.show(&route_changed("added", r)),
                Err(f) => Err(suggest::explain(&nva, f, &used).await),
            }
        }
        DomainCommand::Route(RouteCommand::Remove { domain, prefix }) => {
            let request = v1::RemoveRouteRequest { domain: domain.clone(), prefix: prefix.to_string() };
            match nva.settle(nva.client().remove_route(request)).await {
                Ok(r) => ctx.show(&route_changed("removed", r)),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Domain, &domain)]).await),
            }
        }
    }
}
