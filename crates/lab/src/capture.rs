//! A capture of one wire, and what tshark says about every VXLAN frame in it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cmd;
use crate::lab::process::{Process, tail};

/// What is read of each frame, in this order.
const FIELDS: [&str; 17] = [
    "vxlan.vni",
    "ip.src",
    "ipv6.src",
    "ip.len",
    "ipv6.plen",
    "tcp.srcport",
    "udp.srcport",
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
    "tcp.checksum",
    "tcp.checksum_calculated",
    "_ws.malformed",
    "frame.number",
    "frame.len",
];
/// What tshark's checksum status fields say.
const BAD: &str = "0";
const GOOD: &str = "1";
const ILLEGAL: &str = "4";

/// tcpdump at work.
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// What one side sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// VXLAN frames.
    pub frames: u64,
    /// Those with IPv4 inside.
    pub inner4: u64,
    /// Those with IPv6 inside.
    pub inner6: u64,
    /// Those with UDP inside.
    pub udp: u64,
    /// Those with TCP inside.
    pub tcp: u64,
    /// Those with a full inner packet.
    pub full: u64,
}

/// What a capture showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// By the switch.
    pub from_switch: Side,
    /// By the foreign NVE.
    pub from_foreign: Side,
    /// Frames that tshark cannot make sense of.
    pub malformed: u64,
    /// Bad or illegal checksums, outer and inner.
    pub bad: u64,
    /// Checksums found right.
    pub good: u64,
    /// Bytes of the longest VXLAN frame, without FCS.
    pub longest: u64,
    /// Numbers of the first frames with fault, in the capture file.
    pub faulty: Vec<u64>,
}

impl Capture {
    /// Captures an interface of a namespace into `capture.pcap` of `dir`.
    ///
    /// # Errors
    /// Where tcpdump does not start.
    pub fn start(namespace: &str, interface: &str, dir: &Path) -> Result<Capture> {
        let file = dir.join("capture.pcap");
        let mut command = cmd::in_namespace(namespace, "tcpdump");
        // As root throughout, since the directory is root's; a large buffer, so that bursts fit.
        command.args(["-i", interface, "-s", "0", "-B", "65536", "-U", "-Z", "root", "-w"]).arg(&file);
        let mut process = Process::start("tcpdump", command, dir)?;
        let give_up = Instant::now() + Duration::from_secs(10);
        while !file.exists() || !tail(process.log(), 5).contains("listening on") {
            process.check()?;
            if Instant::now() > give_up {
                bail!("tcpdump does not begin: {}", process.tail(5));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Capture { process, file })
    }

    /// Ends the capture and reads it; `switch` tells the directions apart, and `full` is the length of a full
    /// inner packet.
    ///
    /// # Errors
    /// Where frames are missing from it or tshark fails.
    pub fn finish(mut self, switch: IpAddr, full: u32) -> Result<Findings> {
        self.process.stop(Duration::from_secs(5));
        let log = self.process.tail(5);
        if let Some(n) = dropped_by_kernel(&log)
            && n > 0
        {
            bail!("the capture is incomplete: {n} packets dropped by the kernel");
        }
        read(&self.file, switch, full)
    }
}

/// tcpdump's last line says how many packets it did not get.
fn dropped_by_kernel(log: &str) -> Option<u64> {
    let line = log.lines().find(|l| l.contains("dropped by kernel"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(file: &Path, switch: IpAddr, full: u32) -> Result<Findings> {
    let mut args: Vec<String> = vec!["-r".into(), file.display().to_string(), "-n".into()];
    for protocol in ["ip", "udp", "tcp"] {
        args.extend(["-o".into(), format!("{protocol}.check_checksum:TRUE")]);
    }
    // A tunnel over IPv6 may go without a UDP checksum (RFC 6935).
    args.extend(["-o", "udp.ignore_ipv6_zero_checksum:TRUE", "-d", "udp.port==4789,vxlan"].map(String::from));
    args.extend(["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a"].map(String::from));
    args.extend(FIELDS.iter().flat_map(|f| ["-e".to_owned(), (*f).to_owned()]));
    let text = cmd::run("tshark", &args).context("reading the capture")?;
    let mut findings = Findings::default();
    for line in text.lines() {
        findings.add(line, switch, full);
    }
    Ok(findings)
}

impl Findings {
    /// Takes one frame's fields into account.
    fn add(&mut self, line: &str, switch: IpAddr, full: u32) {
        let fields: Vec<Vec<&str>> =
            line.split('\t').map(|f| f.split(',').filter(|v| !v.is_empty()).collect()).collect();
        let field = |name: &str| {
            let at = FIELDS.iter().position(|f| *f == name);
            at.and_then(|i| fields.get(i)).map(Vec::as_slice).unwrap_or_default()
        };
        let statuses = FIELDS.iter().filter(|f| f.ends_with("checksum.status")).flat_map(|f| field(f));
        let (mut bad, mut good) = (0, 0);
        for status in statuses {
            bad += u64::from([BAD, ILLEGAL].contains(status));
            good += u64::from(*status == GOOD);
        }
        // A TCP checksum of 0 is as good as one of all ones, which Linux sends in its place: both are the same
        // number in ones' complement. tshark calls it bad; it is to be expected once in 65,536 segments.
        let other_zero = field("tcp.checksum.status") == [BAD]
            && field("tcp.checksum") == ["0xffff"]
            && field("tcp.checksum_calculated") == ["0x0000"];
        if other_zero {
            (bad, good) = (bad - 1, good + 1);
        }
        let malformed = u64::from(!field("_ws.malformed").is_empty());
        (self.bad, self.good, self.malformed) =
            (self.bad + bad, self.good + good, self.malformed + malformed);
        if bad + malformed > 0 && self.faulty.len() < 10 {
            self.faulty.extend(field("frame.number").iter().filter_map(|n| n.parse::<u64>().ok()));
        }
        if field("vxlan.vni").is_empty() {
            return;
        }
        let len = field("frame.len").first().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
        self.longest = self.longest.max(len);
        let sources = [field("ip.src"), field("ipv6.src")];
        // Header by header from the outside: the first source is the tunnel's.
        let outer = sources[usize::from(switch.is_ipv6())].first().copied().unwrap_or_default();
        let from_switch = outer.parse() == Ok(switch);
        let side = if from_switch { &mut self.from_switch } else { &mut self.from_foreign };
        side.frames += 1;
        // Of the outer family there is one source more than inside.
        let count = |v6: bool| sources[usize::from(v6)].len() - usize::from(switch.is_ipv6() == v6);
        side.inner4 += u64::from(count(false) > 0);
        side.inner6 += u64::from(count(true) > 0);
        side.tcp += u64::from(!field("tcp.srcport").is_empty());
        side.udp += u64::from(field("udp.srcport").len() > 1);
        let (v4, v6) = (full.to_string(), (full - 40).to_string());
        side.full +=
            u64::from(field("ip.len").contains(&v4.as_str()) || field("ipv6.plen").contains(&v6.as_str()));
    }

    /// What is wrong with it, or what should be there and isn't.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.malformed > 0 || self.bad > 0 {
            all.push(format!("frames {:?} of capture.pcap have faults", self.faulty));
        }
        if self.good == 0 {
            all.push("not one checksum was checked".into());
        }
        for (name, side) in [("Godwit", &self.from_switch), ("Linux", &self.from_foreign)] {
            let kinds = [
                ("VXLAN frames", side.frames),
                ("frames with IPv4 inside", side.inner4),
                ("frames with IPv6 inside", side.inner6),
                ("frames with UDP inside", side.udp),
                ("frames with TCP inside", side.tcp),
                ("full packets", side.full),
            ];
            all.extend(kinds.iter().filter(|k| k.1 == 0).map(|(what, _)| format!("no {what} from {name}")));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let switch: IpAddr = "198.18.0.1".parse().unwrap();
        let mut f = Findings::default();
        // Inner IPv4 and TCP from the switch, full; inner IPv6 and UDP from the other, bad inside.
        f.add(
            "100\t198.18.0.1,203.0.113.10\t\t1450,1400\t\t5001\t50000\t1,1\t3\t1\t\t\t0x1\t0x1\t\t1\t1464",
            switch,
            1400,
        );
        f.add(
            "100\t198.18.0.9\t2001:db8:64::28\t1450\t108\t\t50000,4002\t1\t3,0\t\t\t\t\t\t\t2\t162",
            switch,
            1400,
        );
        // Not VXLAN: address resolution.
        f.add("\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t3\t60", switch, 1400);
        let (s, o) = (&f.from_switch, &f.from_foreign);
        assert_eq!((s.frames, s.inner4, s.inner6, s.tcp, s.udp, s.full), (1, 1, 0, 1, 0, 1));
        assert_eq!((o.frames, o.inner4, o.inner6, o.tcp, o.udp, o.full), (1, 0, 1, 0, 1, 0));
        assert_eq!((f.bad, f.good, f.malformed), (1, 4, 0));
        assert_eq!((f.faulty.as_slice(), f.longest), ([2].as_slice(), 1464));
        assert!(!f.complaints().is_empty());
    }

    #[test]
    fn both_zeros_of_a_tcp_checksum_are_good() {
        let switch: IpAddr = "198.18.0.1".parse().unwrap();
        let mut f = Findings::default();
        let frame = |status, sent, right| {
            format!(
                "100\t198.18.0.9,203.0.113.40\t\t102,52\t\t5001\t5\t1,1\t3\t{status}\t\t\t{sent}\t{right}\t\t1\t116"
            )
        };
        f.add(&frame(BAD, "0xffff", "0x0000"), switch, 1400);
        assert_eq!((f.bad, f.good), (0, 3));
        f.add(&frame(BAD, "0xffff", "0x0001"), switch, 1400);
        f.add(&frame(BAD, "0x1234", "0x0000"), switch, 1400);
        assert_eq!(f.bad, 2);
    }

    #[test]
    fn tcpdumps_losses_are_read() {
        assert_eq!(dropped_by_kernel("9 packets captured\n      3 packets dropped by kernel\n"), Some(3));
        assert_eq!(dropped_by_kernel(""), None);
    }
}
