//! A capture of one wire, and what tshark says about every VXLAN frame in it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cmd;
use crate::lab::VNI;
use crate::lab::process::{Process, tail};

/// What is read of each frame, in this order.
const FIELDS: [&str; 26] = [
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
    "ip.ttl",
    "ipv6.hlim",
    "ip.flags.mf",
    "ip.opt.type",
    "ipv6.fraghdr.nxt",
    "ipv6.dstopts.nxt",
    "ip.reassembled.length",
    "ipv6.reassembled.length",
    "ip.fragment.error",
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
    /// Those whose inner packet is a fragment that others follow, or one over IPv6.
    pub fragments: u64,
    /// Those with the last fragment of an inner packet that is whole then, and whose checksums were looked at.
    pub reassembled: u64,
    /// Those whose inner packet has options: of IPv4, or for the destination over IPv6.
    pub options: u64,
    /// Their virtual networks.
    pub vnis: BTreeSet<u32>,
    /// Times to live of the inner packets.
    pub ttls: BTreeSet<u8>,
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

/// What a capture showed of frames that a switch sent and no VM of its own: it put them into an outer header anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Relayed {
    /// Such frames.
    pub frames: u64,
    /// Those of another VN.
    pub other_vn: u64,
    /// Those that tshark cannot make sense of.
    pub malformed: u64,
    /// Their bad or illegal checksums, outer and inner.
    pub bad: u64,
    /// Their checksums found right.
    pub good: u64,
    /// Numbers of the first ones with fault, in the capture file.
    pub faulty: Vec<u64>,
}

/// What tshark says of one frame.
struct Fields<'a>(Vec<Vec<&'a str>>);

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
    pub fn finish(self, switch: IpAddr, full: u32) -> Result<Findings> {
        let mut findings = Findings::default();
        self.end()?.lines().for_each(|line| findings.add(line, switch, full));
        Ok(findings)
    }

    /// Ends the capture and reads what `switch` sent of a VM with this address, which is at another switch.
    ///
    /// # Errors
    /// See [`Capture::finish`].
    pub fn relayed(self, switch: IpAddr, vm: IpAddr) -> Result<Relayed> {
        let mut relayed = Relayed::default();
        self.end()?.lines().for_each(|line| relayed.add(line, switch, vm));
        Ok(relayed)
    }

    /// Ends the capture; a line of fields for each of its frames.
    fn end(self) -> Result<String> {
        read(&self.end_in_file()?)
    }

    /// Ends the capture, which lies in the file that is returned.
    ///
    /// # Errors
    /// Where frames are missing from it.
    pub fn end_in_file(mut self) -> Result<PathBuf> {
        self.process.stop(Duration::from_secs(5));
        let log = self.process.tail(5);
        if let Some(n) = dropped_by_kernel(&log)
            && n > 0
        {
            bail!("the capture is incomplete: {n} packets dropped by the kernel");
        }
        Ok(self.file)
    }
}

/// A flag, as old and new versions of tshark write it.
fn is_set(flag: &str) -> bool {
    ["1", "True"].contains(&flag)
}

/// tcpdump's last line says how many packets it did not get.
fn dropped_by_kernel(log: &str) -> Option<u64> {
    let line = log.lines().find(|l| l.contains("dropped by kernel"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(file: &Path) -> Result<String> {
    let mut args: Vec<String> = vec!["-r".into(), file.display().to_string(), "-n".into()];
    for protocol in ["ip", "udp", "tcp"] {
        args.extend(["-o".into(), format!("{protocol}.check_checksum:TRUE")]);
    }
    // A tunnel over IPv6 may go without a UDP checksum (RFC 6935).
    args.extend(["-o", "udp.ignore_ipv6_zero_checksum:TRUE", "-d", "udp.port==4789,vxlan"].map(String::from));
    // The lab's payloads are random, and now and then one looks like the beginning of some protocol that it then is
    // not.
    args.extend(["-d", "tcp.port==1-65535,data", "-d", "udp.port==1-4788,data"].map(String::from));
    args.extend(["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a"].map(String::from));
    args.extend(FIELDS.iter().flat_map(|f| ["-e".to_owned(), (*f).to_owned()]));
    cmd::run("tshark", &args).context("reading the capture")
}

impl<'a> Fields<'a> {
    fn new(line: &'a str) -> Fields<'a> {
        Fields(line.split('\t').map(|f| f.split(',').filter(|v| !v.is_empty()).collect()).collect())
    }

    /// All values of a field, from the outside.
    fn of(&self, name: &str) -> &[&'a str] {
        let at = FIELDS.iter().position(|f| *f == name);
        at.and_then(|i| self.0.get(i)).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many of its checksums are bad or illegal, and how many are right.
    fn checksums(&self) -> (u64, u64) {
        let statuses = FIELDS.iter().filter(|f| f.ends_with("checksum.status")).flat_map(|f| self.of(f));
        let (mut bad, mut good) = (0, 0);
        for status in statuses {
            bad += u64::from([BAD, ILLEGAL].contains(status));
            good += u64::from(*status == GOOD);
        }
        // A TCP checksum of 0 is as good as one of all ones, which Linux sends in its place: both are the same
        // number in ones' complement. tshark calls it bad; it is to be expected once in 65,536 segments.
        let other_zero = self.of("tcp.checksum.status") == [BAD]
            && self.of("tcp.checksum") == ["0xffff"]
            && self.of("tcp.checksum_calculated") == ["0x0000"];
        if other_zero { (bad - 1, good + 1) } else { (bad, good) }
    }

    fn is_malformed(&self) -> bool {
        !self.of("_ws.malformed").is_empty() || !self.of("ip.fragment.error").is_empty()
    }

    fn number(&self) -> Option<u64> {
        self.of("frame.number").first().and_then(|n| n.parse().ok())
    }

    /// The sources of a family; header by header from the outside.
    fn sources(&self, v6: bool) -> &[&'a str] {
        self.of(if v6 { "ipv6.src" } else { "ip.src" })
    }

    /// The tunnel's source is this address.
    fn is_from(&self, switch: IpAddr) -> bool {
        self.sources(switch.is_ipv6()).first().and_then(|s| s.parse().ok()) == Some(switch)
    }

    /// The sources inside the tunnel, whose own address is of this switch's family.
    fn inner_sources(&self, v6: bool, switch: IpAddr) -> &[&'a str] {
        self.inner(if v6 { "ipv6.src" } else { "ip.src" }, switch.is_ipv6() == v6)
    }

    /// The values of a field inside the tunnel, whose own header has one, too, where `outer`.
    fn inner(&self, name: &str, outer: bool) -> &[&'a str] {
        self.of(name).get(usize::from(outer)..).unwrap_or_default()
    }

    /// The first value of a field of either family inside the tunnel, by the name of each: further ones are of what an
    /// ICMP error quotes.
    fn first_inner(&self, (v4, v6): (&str, &str), switch: IpAddr) -> Option<&'a str> {
        let of = |name, is_v6: bool| self.inner(name, switch.is_ipv6() == is_v6).first().copied();
        of(v4, false).or_else(|| of(v6, true))
    }
}

impl Relayed {
    /// Takes one frame's fields into account.
    fn add(&mut self, line: &str, switch: IpAddr, vm: IpAddr) {
        let fields = Fields::new(line);
        let inside = fields.inner_sources(vm.is_ipv6(), switch).iter().any(|s| s.parse() == Ok(vm));
        let vni = fields.of("vxlan.vni");
        if vni.is_empty() || !fields.is_from(switch) || !inside {
            return;
        }
        let ((bad, good), malformed) = (fields.checksums(), u64::from(fields.is_malformed()));
        let other_vn = u64::from(vni != [VNI.to_string().as_str()]);
        self.frames += 1;
        self.other_vn += other_vn;
        self.malformed += malformed;
        (self.bad, self.good) = (self.bad + bad, self.good + good);
        if bad + malformed + other_vn > 0 && self.faulty.len() < 10 {
            self.faulty.extend(fields.number());
        }
    }

    /// There were some, and none has a fault.
    pub fn is_right(&self) -> bool {
        self.frames > 0 && self.good > 0 && self.other_vn + self.malformed + self.bad == 0
    }
}

impl Findings {
    /// Takes one frame's fields into account.
    fn add(&mut self, line: &str, switch: IpAddr, full: u32) {
        let fields = Fields::new(line);
        let field = |name: &str| fields.of(name);
        let ((bad, good), malformed) = (fields.checksums(), u64::from(fields.is_malformed()));
        (self.bad, self.good, self.malformed) =
            (self.bad + bad, self.good + good, self.malformed + malformed);
        if bad + malformed > 0 && self.faulty.len() < 10 {
            self.faulty.extend(fields.number());
        }
        if field("vxlan.vni").is_empty() {
            return;
        }
        let len = field("frame.len").first().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
        self.longest = self.longest.max(len);
        let side = if fields.is_from(switch) { &mut self.from_switch } else { &mut self.from_foreign };
        side.frames += 1;
        let count = |v6: bool| fields.inner_sources(v6, switch).len();
        side.inner4 += u64::from(count(false) > 0);
        side.inner6 += u64::from(count(true) > 0);
        side.tcp += u64::from(!field("tcp.srcport").is_empty());
        side.udp += u64::from(field("udp.srcport").len() > 1);
        side.vnis.extend(field("vxlan.vni").iter().filter_map(|vni| vni.parse::<u32>().ok()));
        let ttl = fields.first_inner(("ip.ttl", "ipv6.hlim"), switch);
        side.ttls.extend(ttl.and_then(|ttl| ttl.parse::<u8>().ok()));
        let more = fields.inner("ip.flags.mf", switch.is_ipv4()).first().is_some_and(|mf| is_set(mf));
        side.fragments += u64::from(more || !field("ipv6.fraghdr.nxt").is_empty());
        let whole = [field("ip.reassembled.length"), field("ipv6.reassembled.length")];
        side.reassembled += u64::from(whole.iter().any(|w| !w.is_empty()));
        let options = [field("ip.opt.type"), field("ipv6.dstopts.nxt")];
        side.options += u64::from(options.iter().any(|o| !o.is_empty()));
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
        assert_eq!((&s.vnis, &o.vnis), (&[100].into(), &[100].into()));
        assert_eq!((f.faulty.as_slice(), f.longest), ([2].as_slice(), 1464));
        assert!(!f.complaints().is_empty());
    }

    #[test]
    fn times_to_live_fragments_and_options_are_those_of_the_inner_packet() {
        let switch: IpAddr = "198.18.0.1".parse().unwrap();
        let frame = |sources4: &str, sources6: &str, rest: &str| {
            format!("202\t{sources4}\t{sources6}\t102\t52\t\t\t1\t\t\t\t\t\t\t\t1\t116\t{rest}")
        };
        let mut f = Findings::default();
        // Time exceeded, which quotes a packet whose time is up.
        f.add(&frame("198.18.0.1,10.1.1.10,10.1.2.20", "", "64,63,1\t\t0,0,0"), switch, 1400);
        f.add(&frame("198.18.0.1,10.1.1.10", "", "64,62\t\t0,1\t68"), switch, 1400);
        f.add(&frame("198.18.0.1", "2001:db8:1:1::10", "64\t61\t0\t\t58\t58"), switch, 1400);
        let side = &f.from_switch;
        assert_eq!((side.fragments, side.options), (2, 2));
        assert_eq!(side.ttls, [61, 62, 63].into());
        assert_eq!(side.vnis, [202].into());
    }

    #[test]
    fn frames_of_another_switchs_vm_are_relayed_ones() {
        let (switch, vm): (IpAddr, IpAddr) = ("198.18.0.1".parse().unwrap(), "203.0.113.20".parse().unwrap());
        let mut r = Relayed::default();
        let frame = |vni, outer: &str, inner: &str, status, malformed, n| {
            format!(
                "{vni}\t{outer},{inner}\t\t102,52\t\t\t5,5\t1,1\t3,{status}\t\t\t\t\t\t{malformed}\t{n}\t116"
            )
        };
        r.add(&frame(100, "198.18.0.1", "203.0.113.20", GOOD, "", 1), switch, vm);
        // What the VM's own switch sent, and what a VM of this switch did.
        r.add(&frame(100, "198.18.0.3", "203.0.113.20", BAD, "", 2), switch, vm);
        r.add(&frame(100, "198.18.0.1", "203.0.113.10", BAD, "", 3), switch, vm);
        assert_eq!((r.frames, r.good, r.faulty.len()), (1, 3, 0));
        assert!(r.is_right());
        for (vni, status, malformed) in [(100, BAD, ""), (101, GOOD, ""), (100, GOOD, "1")] {
            let mut r = r.clone();
            r.add(&frame(vni, "198.18.0.1", "203.0.113.20", status, malformed, 9), switch, vm);
            assert!(!r.is_right() && r.faulty == [9]);
        }
        assert!(!Relayed::default().is_right(), "nothing seen is nothing shown");
        // An outer header of the other family.
        let outer6 = "2001:db8:18::1".parse().unwrap();
        let line = "100\t203.0.113.20\t2001:db8:18::1\t52\t\t\t5,5\t1\t3,1\t\t\t\t\t\t\t4\t136";
        r.add(line, outer6, vm);
        assert_eq!(r.frames, 2);
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
