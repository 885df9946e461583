//! `godwitctl policy`: what VMs may send and receive, wherever they run.

use clap::{Args, Subcommand, ValueEnum};
use godwit_api::v1;
use godwit_wire::Dscp;
use serde::Serialize;

use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::parse;
use crate::suggest::{self, Named};
use crate::table::{Table, facts};

/// Policies: what VMs may send and receive, wherever they run.
#[derive(Subcommand, Clone, Debug)]
pub enum PolicyCommand {
    /// Make a policy, or give one other rules; VMs that have it follow at once.
    Define(DefineArgs),
    /// List the policies.
    List,
    /// Show one policy with its rules.
    Show {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
    /// Remove a policy that no VM has.
    Remove {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// Arguments of `policy define`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Rules:
  allow|deny in|out [any|tcp|udp|sctp|icmp|icmp6|NUMBER] [ADDRESS[/LENGTH]] [port N[-N]] [remote-port N[-N]]

  `out` is what the VM sends, `in` what it is sent; the address and `remote-port` are the other side's, `port` is
  the VM's own. The first rule that matches decides. Nothing is remembered of connections: what answers a
  permitted packet needs a rule of its own. ARP, RARP and neighbor discovery always pass.

Examples:
  godwitctl policy define no-mail --rule 'deny out tcp remote-port 25'
  godwitctl policy define web --default deny --rule 'allow in tcp port 443' --rule 'allow out tcp port 443' \\
      --rule 'allow out udp 10.0.0.53 remote-port 53' --rule 'allow in udp 10.0.0.53 remote-port 53'
  godwitctl policy define slow --rate 10000 --burst 200
  godwitctl policy define voice --dscp EF
  godwitctl vm define web1 --vn blue --mac 02:00:00:00:00:01 --ipv4 10.0.0.1 --policy web")]
pub struct DefineArgs {
    /// Its name.
    #[arg(value_parser = parse::name)]
    name: String,
    /// A rule; may be repeated, at most 64 times. They are tried in this order.
    #[arg(long = "rule", value_name = "RULE", value_parser = parse::rule)]
    rules: Vec<String>,
    /// What becomes of packets that no rule matches.
    #[arg(long, value_enum, default_value_t = Default::Allow)]
    default: Default,
    /// Packets a second that a VM may send; without it there is no bound.
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Packets that it may send at once after a silence; without it a tenth of a second's.
    #[arg(long, value_name = "PACKETS", requires = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    burst: Option<u32>,
    /// Outer DSCP of what a VM sends to other NVEs, for the underlay's queues: 0 to 63, or a name such as EF, AF41,
    /// CS5. The VM's own packets stay as they are. Without it, as of VMs without a policy.
    #[arg(long, value_name = "DSCP", value_parser = parse::dscp)]
    dscp: Option<Dscp>,
}

/// What becomes of packets that no rule matches.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Default {
    /// They go on.
    Allow,
    /// They are dropped.
    Deny,
}

/// A policy for output.
#[derive(Serialize)]
struct PolicyView {
    name: String,
    rules: Vec<String>,
    /// allow or deny.
    default: &'static str,
    /// Null: no bound.
    rate: Option<u32>,
    burst: Option<u32>,
    /// 0 to 63; null: no mark.
    dscp: Option<u32>,
}

impl From<v1::Policy> for PolicyView {
    fn from(p: v1::Policy) -> PolicyView {
        let bound = |n| (p.rate != 0).then_some(n);
        PolicyView {
            default: if p.default_deny { "deny" } else { "allow" },
            rate: bound(p.rate),
            burst: bound(p.burst),
            dscp: p.dscp,
            name: p.name,
            rules: p.rules,
        }
    }
}

impl PolicyView {
    fn limit(&self) -> String {
        match (self.rate, self.burst) {
            (Some(rate), Some(burst)) => format!("{rate} packets/s, {burst} at once"),
            _ => String::new(),
        }
    }

    /// The name and the number, or the number where there is no name.
    fn mark(&self) -> String {
        let Some(number) = self.dscp else { return String::new() };
        let name = u8::try_from(number).ok().and_then(Dscp::new).and_then(Dscp::name);
        name.map_or_else(|| number.to_string(), |name| format!("{name} ({number})"))
    }
}

impl Report for PolicyView {
    fn text(&self) -> String {
        let mut lines = vec![("policy", self.name.clone())];
        lines.extend(self.rules.iter().map(|r| ("rule", r.clone())));
        lines.push(("default", self.default.into()));
        lines.push(("sends", self.limit()));
        lines.push(("DSCP", self.mark()));
        facts(&lines)
    }
}

#[derive(Serialize)]
struct PolicyList {
    policies: Vec<PolicyView>,
}

impl Report for PolicyList {
    fn text(&self) -> String {
        let mut t = Table::new(&["NAME", ">RULES", "DEFAULT", "SENDS", "DSCP"]);
        for p in &self.policies {
            t.row([p.name.clone(), p.rules.len().to_string(), p.default.into(), p.limit(), p.mark()]);
        }
        t.text_or("no policies; `godwitctl policy define` makes one")
    }
}

#[derive(Serialize)]
struct Changed {
    #[serde(skip)]
    verb: &'static str,
    #[serde(flatten)]
    policy: PolicyView,
}

impl Report for Changed {
    fn text(&self) -> String {
        let (name, rules) = (&self.policy.name, self.policy.rules.len());
        let mark = self.policy.dscp.map(|_| format!(", DSCP {}", self.policy.mark())).unwrap_or_default();
        format!("policy {name} {} ({rules} rules, default {}{mark})\n", self.verb, self.policy.default)
    }
}

fn request(a: DefineArgs) -> v1::Policy {
    let rate = a.rate.unwrap_or(0);
    v1::Policy {
        name: a.name,
        rules: a.rules,
        default_deny: a.default == Default::Deny,
        rate,
        burst: a.burst.unwrap_or_else(|| rate.div_ceil(10)),
        dscp: a.dscp.map(|dscp| dscp.get().into()),
    }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: PolicyCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    let named = |name: &str| v1::PolicyName { name: name.into() };
    match command {
        PolicyCommand::Define(args) => {
            let policy = nva.settle(nva.client().define_policy(request(args))).await?;
            ctx.show(&Changed { verb: "defined", policy: policy.into() })
        }
        PolicyCommand::List => {
            let policies = nva.policies().await?.into_iter().map(PolicyView::from).collect();
            ctx.show(&PolicyList { policies })
        }
        PolicyCommand::Show { name } => match nva.settle(nva.client().show_policy(named(&name))).await {
            Ok(policy) => ctx.show(&PolicyView::from(policy)),
            Err(f) => Err(suggest::explain(&nva, f, &[(Named::Policy, &name)]).await),
        },
        PolicyCommand::Remove { name } => match nva.settle(nva.client().remove_policy(named(&name))).await {
            Ok(policy) => ctx.show(&Changed { verb: "removed", policy: policy.into() }),
            Err(f) => Err(suggest::explain(&nva, f, &[(Named::Policy, &name)]).await),
        },
    }
}
