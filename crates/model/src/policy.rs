//! Policies: what a VM may send and receive, and how much, wherever it runs (R23, RFC 8394 section 3.3).

use core::net::IpAddr;

use godwit_wire::policy::{Direction, MAX_RULES, NAMES, PortRange, Rule, Verdict};
use godwit_wire::{Dscp, Prefix, dscp, proto};

use crate::{BadName, check_name};

/// Packets that a VM may send at once at least, where it may send so many a second.
const LEAST_BURST: u32 = 1;

/// A named policy. The directory has it; a VM's record names it, and it goes where the VM goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Its name, unique in the directory.
    pub name: String,
    /// The first that matches decides.
    pub rules: Vec<Rule>,
    /// What becomes of frames that none matches.
    pub default: Verdict,
    /// Packets a second that the VM may send; 0: no bound.
    pub rate: u32,
    /// Packets that it may send at once after a silence.
    pub burst: u32,
    /// Outer DSCP of what it sends to other NVEs, for the underlay's queues; the VM's own packets stay as they are
    /// (R6). `None`: as without a policy.
    pub dscp: Option<Dscp>,
}

/// A policy that cannot be used; says why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPolicy {
    /// Its name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// It is too long.
    #[error("policy {name}: {got} rules; at most {MAX_RULES} are possible")]
    TooManyRules {
        /// The policy.
        name: String,
        /// Its rules.
        got: usize,
    },
    /// It would let nothing out.
    #[error(
        "policy {name}: a rate of {rate} packets a second needs a burst of {LEAST_BURST} packet at least"
    )]
    NoBurst {
        /// The policy.
        name: String,
        /// Its rate.
        rate: u32,
    },
}

impl Policy {
    /// Whether it can be used.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), BadPolicy> {
        check_name("policy", &self.name)?;
        let name = self.name.clone();
        if self.rules.len() > MAX_RULES {
            return Err(BadPolicy::TooManyRules { name, got: self.rules.len() });
        }
        if self.rate > 0 && self.burst < LEAST_BURST {
            return Err(BadPolicy::NoBurst { name, rate: self.rate });
        }
        Ok(())
    }
}

/// A rule that cannot be read, or that could never match; says why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0}; a rule is `allow|deny in|out [any|tcp|udp|sctp|icmp|icmp6|NUMBER] [ADDRESS[/LENGTH]] [port N[-N]] \
     [remote-port N[-N]]`"
)]
pub struct BadRule(pub String);

/// Reads a rule as [`Rule`]'s `Display` writes it.
///
/// # Errors
/// What is wrong with it, and how a rule is written.
pub fn parse_rule(s: &str) -> Result<Rule, BadRule> {
    let mut words = s.split_ascii_whitespace().peekable();
    let bad = |what: &str, word: Option<&str>| match word {
        Some(word) => BadRule(format!("`{s}`: `{word}` is not {what}")),
        None => BadRule(format!("`{s}` ends where {what} is expected")),
    };
    let verdict = match words.next() {
        Some("allow") => Verdict::Allow,
        Some("deny") => Verdict::Deny,
        other => return Err(bad("`allow` or `deny`", other)),
    };
    let direction = match words.next() {
        Some("in") => Direction::In,
        Some("out") => Direction::Out,
        other => return Err(bad("`in` or `out`", other)),
    };
    let mut rule = Rule { verdict, direction, ..Rule::ANY };
    if let Some(proto) = words.peek().and_then(|w| protocol(w)) {
        rule.proto = proto;
        words.next();
    }
    if let Some(word) = words.next_if(|w| w.contains(['.', ':'])) {
        rule.remote = Some(prefix(word)?);
    }
    while let Some(word) = words.next() {
        let place = match word {
            "port" => &mut rule.port,
            "remote-port" => &mut rule.remote_port,
            other => return Err(bad("`port` or `remote-port`", Some(other))),
        };
        if place.is_some() {
            return Err(BadRule(format!("`{s}`: `{word}` is there twice")));
        }
        let word = words.next();
        *place = Some(word.and_then(ports).ok_or_else(|| bad("a port or a range of ports", word))?);
    }
    check(rule, s)
}

/// A DSCP that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no DSCP: it is a number from 0 to 63, or a name such as EF, AF41, CS5, VA or LE")]
pub struct BadDscp(pub String);

/// Reads a DSCP as its `Display` writes it: a name in upper or lower case, or a number.
///
/// # Errors
/// How one is written.
pub fn parse_dscp(s: &str) -> Result<Dscp, BadDscp> {
    let named = dscp::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(s)).map(|(_, n)| *n);
    let number = named.or_else(|| s.parse().ok());
    number.and_then(Dscp::new).ok_or_else(|| BadDscp(s.into()))
}

/// Refuses what could never match.
fn check(rule: Rule, s: &str) -> Result<Rule, BadRule> {
    let ports = rule.port.is_some() || rule.remote_port.is_some();
    if ports && !rule.proto.is_some_and(proto::has_ports) {
        return Err(BadRule(format!("`{s}`: ports need a protocol that has them: tcp, udp or sctp")));
    }
    let v4 = rule.remote.map(|r| r.is_ipv4());
    if rule.proto == Some(proto::ICMPV6) && v4 == Some(true)
        || rule.proto == Some(proto::ICMP) && v4 == Some(false)
    {
        return Err(BadRule(format!("`{s}`: protocol and address are of different IP versions")));
    }
    Ok(rule)
}

/// `Some(None)` for any.
fn protocol(word: &str) -> Option<Option<u8>> {
    if word == "any" {
        return Some(None);
    }
    let named = NAMES.iter().find(|(name, _)| *name == word).map(|(_, n)| *n);
    named.or_else(|| word.parse().ok()).map(Some)
}

fn prefix(word: &str) -> Result<Prefix, BadRule> {
    let bad = || BadRule(format!("`{word}` is not an IP address with or without a prefix length"));
    let (addr, len) = match word.split_once('/') {
        Some((addr, len)) => (addr, Some(len.parse().map_err(|_| bad())?)),
        None => (word, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| bad())?;
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    let wrong = || BadRule(format!("`{word}`: at most {bits} bits count, and those beyond them must be 0"));
    Prefix::new(addr, len.unwrap_or(bits)).ok_or_else(wrong)
}

/// The first is not beyond the last.
fn ports(word: &str) -> Option<PortRange> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    PortRange::new(first.parse().ok()?, last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r23_rules_are_written_as_they_are_read() {
        for rule in [
            "allow in any",
            "deny out tcp 192.0.2.0/24 remote-port 25",
            "deny in udp 2001:db8::/32 port 53 remote-port 1024-65535",
            "allow out icmp6",
            "deny out 47 10.0.0.1/32",
            "deny in sctp port 1-2",
        ] {
            assert_eq!(parse_rule(rule).map(|r| r.to_string()).as_deref(), Ok(rule));
        }
        let short = parse_rule("deny  out 10.0.0.1").map(|r| r.to_string());
        assert_eq!(short.as_deref(), Ok("deny out any 10.0.0.1/32"));
        assert_eq!(parse_rule("allow in").map(|r| r.to_string()).as_deref(), Ok("allow in any"));
    }

    #[test]
    fn r23_a_rule_that_cannot_be_read_says_what_is_wrong() {
        for (rule, what) in [
            ("", "`allow` or `deny`"),
            ("permit in", "`permit` is not `allow` or `deny`"),
            ("deny", "ends where `in` or `out`"),
            ("deny both", "`both` is not `in` or `out`"),
            ("deny out tpc", "`tpc` is not `port`"),
            ("deny out tcp 10.0.0.1/33", "at most 32 bits"),
            ("deny out tcp 10.0.0.1/8", "beyond them must be 0"),
            ("deny out tcp 10.0.0.x", "not an IP address"),
            ("deny out tcp port", "ends where a port"),
            ("deny out tcp port 9-8", "`9-8` is not a port"),
            ("deny out tcp port 65536", "`65536` is not a port"),
            ("deny out tcp port 1 port 2", "twice"),
            ("deny out port 1", "ports need a protocol"),
            ("deny out icmp port 1", "ports need a protocol"),
            ("deny out icmp 2001:db8::1", "different IP versions"),
            ("deny out 300", "`300` is not"),
        ] {
            let said = parse_rule(rule).expect_err(rule).to_string();
            assert!(said.contains(what) && said.contains("a rule is"), "{rule}: {said}");
        }
    }

    #[test]
    fn r23_a_dscp_is_a_name_or_a_number() {
        for (text, number, said) in [
            ("EF", 46, "EF"),
            ("af41", 34, "AF41"),
            ("Cs5", 40, "CS5"),
            ("46", 46, "EF"),
            ("63", 63, "63"),
            ("0", 0, "CS0"),
        ] {
            let dscp = parse_dscp(text).expect(text);
            assert_eq!((dscp.get(), dscp.to_string().as_str()), (number, said));
            assert_eq!(parse_dscp(said), Ok(dscp), "read as it is written");
        }
        for bad in ["64", "-1", "AF44", "CS8", "", "0x2e", "256"] {
            let said = parse_dscp(bad).expect_err(bad).to_string();
            assert!(said.contains(&format!("`{bad}`")) && said.contains("0 to 63"), "{said}");
        }
    }

    #[test]
    fn r23_a_policy_that_cannot_be_used_is_refused() {
        let good = Policy {
            name: "web".into(),
            rules: vec![Rule::ANY; 64],
            default: Verdict::Deny,
            rate: 0,
            burst: 0,
            dscp: None,
        };
        assert_eq!(good.check(), Ok(()));
        let long = Policy { rules: vec![Rule::ANY; 65], ..good.clone() };
        let (nameless, mute) = (Policy { name: "a b".into(), ..good.clone() }, Policy { rate: 10, ..good });
        for (bad, what) in [(long, "65 rules"), (nameless, "policy name"), (mute, "a burst of 1")] {
            let said = bad.check().expect_err(what).to_string();
            assert!(said.contains(what), "{said}");
        }
    }
}
