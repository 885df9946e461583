//! `godwitctl trace`: what an NVE would do with a described frame, and why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Args, ValueEnum};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_wire::Mac;
use serde::Serialize;

use super::port::{self, NveArg};
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::frame::{Content, Description, MAX_LEN, Upper};
use crate::hand::{Hand, unexpected};
use crate::{parse, suggest};

/// Arguments of `trace`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl trace --nve nve-a --port vm1 --dst 02:00:00:00:00:02
  godwitctl trace --nve nve-a --port vm1 --dst 02:00:00:00:00:02 \\
      --ipv4-src 10.0.0.1 --ipv4-dst 10.0.0.2 --proto tcp --dport 443
  godwitctl trace --nve nve-a --port vm1 --arp 10.0.0.2 --ipv4-src 10.0.0.1
  godwitctl trace --nve nve-a --port vm1 --nd 2001:db8::2 --ipv6-src 2001:db8::1
  godwitctl trace --nve nve-a --port uplink0 --hex \"$(cat frame.hex)\"

Nothing is sent: the NVE looks the frame up in its tables and says what it would do.")]
#[command(group(clap::ArgGroup::new("special").args(["arp", "garp", "rarp", "nd", "na", "hex"])))]
pub struct TraceArgs {
    #[command(flatten)]
    target: NveArg,
    /// The port that the frame comes in by.
    #[arg(long, value_parser = parse::name)]
    port: String,
    /// Destination MAC address; known by itself for ARP, ND and multicast.
    #[arg(long, value_name = "MAC", value_parser = parse::mac)]
    dst: Option<Mac>,
    /// Source MAC address; without it that of the port's VM.
    #[arg(long, value_name = "MAC", value_parser = parse::mac)]
    src: Option<Mac>,
    /// VLAN tag with this ID.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(0..=4095))]
    vlan: Option<u16>,
    /// Source IPv4 address, of an IPv4 packet or of the one who asks with --arp.
    #[arg(long, value_name = "IP", value_parser = parse::ipv4, conflicts_with_all = ["ipv6_src", "ipv6_dst"])]
    ipv4_src: Option<Ipv4Addr>,
    /// Destination IPv4 address.
    #[arg(long, value_name = "IP", value_parser = parse::ipv4, requires = "ipv4_src")]
    #[arg(conflicts_with_all = ["special", "ipv6_src", "ipv6_dst"])]
    ipv4_dst: Option<Ipv4Addr>,
    /// Source IPv6 address, of an IPv6 packet or of the one who asks with --nd.
    #[arg(long, value_name = "IP", value_parser = parse::ipv6)]
    ipv6_src: Option<Ipv6Addr>,
    /// Destination IPv6 address.
    #[arg(long, value_name = "IP", value_parser = parse::ipv6, requires = "ipv6_src", conflicts_with = "special")]
    ipv6_dst: Option<Ipv6Addr>,
    /// What the IP packet carries.
    #[arg(long, value_enum, default_value_t = Proto::Udp, conflicts_with = "special")]
    proto: Proto,
    /// Source port of UDP or TCP.
    #[arg(long, value_name = "PORT", default_value_t = 40000)]
    sport: u16,
    /// Destination port of UDP or TCP.
    #[arg(long, value_name = "PORT", default_value_t = 9)]
    dport: u16,
    /// Hops that the packet may still go.
    #[arg(long, value_name = "HOPS", default_value_t = 64)]
    ttl: u8,
    /// Bytes of zeros after the innermost header.
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=200))]
    payload: u16,
    /// An ARP request: who has this address?
    #[arg(long, value_name = "IP", value_parser = parse::ipv4)]
    arp: Option<Ipv4Addr>,
    /// A gratuitous ARP: this address is mine.
    #[arg(long, value_name = "IP", value_parser = parse::ipv4)]
    garp: Option<Ipv4Addr>,
    /// A RARP announcement, as QEMU sends it when a VM starts at its new host.
    #[arg(long)]
    rarp: bool,
    /// A neighbor solicitation: who has this address?
    #[arg(long, value_name = "IP", value_parser = parse::ipv6)]
    nd: Option<Ipv6Addr>,
    /// An unsolicited neighbor advertisement: this address is mine.
    #[arg(long, value_name = "IP", value_parser = parse::ipv6)]
    na: Option<Ipv6Addr>,
    /// The frame itself in hexadecimal, from its destination address on, at most 256 bytes.
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["dst", "src", "vlan", "ipv4_src", "ipv6_src"])]
    hex: Option<String>,
}

/// What an IP packet carries.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proto {
    /// A UDP datagram.
    Udp,
    /// A TCP SYN.
    Tcp,
    /// An echo request of ICMP, or of ICMPv6.
    Icmp,
}

/// The trace for output.
#[derive(Serialize)]
struct TraceView {
    port: String,
    frame: String,
    frame_hex: String,
    frame_bytes: usize,
    worker: u32,
    steps: Vec<String>,
    verdict: String,
}

impl Report for TraceView {
    fn text(&self) -> String {
        let mut text = format!(
            "frame    {} ({} bytes)\nport     {} (worker {})\n\n",
            self.frame, self.frame_bytes, self.port, self.worker
        );
        for (i, step) in self.steps.iter().enumerate() {
            text += &format!("{:>3}. {step}\n", i + 1);
        }
        text += &format!("\nverdict  {}\n", self.verdict);
        text
    }
}

impl TraceArgs {
    fn upper(&self) -> Upper {
        match self.proto {
            Proto::Udp => Upper::Udp { sport: self.sport, dport: self.dport },
            Proto::Tcp => Upper::Tcp { sport: self.sport, dport: self.dport },
            Proto::Icmp => Upper::Echo,
        }
    }

    fn content(&self) -> Result<Content, Failure> {
        if let Some(target) = self.arp {
            return Ok(Content::ArpRequest {
                sender: self.ipv4_src.unwrap_or(Ipv4Addr::UNSPECIFIED),
                target,
            });
        }
        if let Some(ip) = self.garp {
            return Ok(Content::GratuitousArp(ip));
        }
        if self.rarp {
            return Ok(Content::Rarp);
        }
        if let Some(target) = self.nd {
            return Ok(Content::Solicitation {
                sender: self.ipv6_src.unwrap_or(Ipv6Addr::UNSPECIFIED),
                target,
            });
        }
        if let Some(ip) = self.na {
            return Ok(Content::Advertisement(ip));
        }
        let v4 = self.ipv4_src.map(IpAddr::V4).zip(self.ipv4_dst.map(IpAddr::V4));
        let v6 = self.ipv6_src.map(IpAddr::V6).zip(self.ipv6_dst.map(IpAddr::V6));
        match v4.or(v6) {
            Some((src, dst)) => {
                let payload = usize::from(self.payload);
                Ok(Content::Ip { src, dst, upper: self.upper(), ttl: self.ttl, payload })
            }
            None if self.ipv4_src.is_some() || self.ipv6_src.is_some() => {
                Err(Failure::usage("a source IP address alone describes no packet")
                    .remedy("give --ipv4-dst or --ipv6-dst with it, or ask with --arp or --nd"))
            }
            None => Ok(Content::Bare),
        }
    }

    /// The frame and its description in words.
    async fn frame(&self, hand: &Hand) -> Result<(Vec<u8>, String), Failure> {
        if let Some(hex) = &self.hex {
            return raw_frame(hex);
        }
        let content = self.content()?;
        let src = match self.src {
            Some(src) => src,
            None => vm_behind(hand, &self.port).await?,
        };
        let Some(dst) = self.dst.or_else(|| content.natural_dst()) else {
            return Err(Failure::usage("where does the frame go? its destination MAC address is missing")
                .remedy("give --dst; only ARP, ND, broadcast and multicast go without"));
        };
        let described = Description { dst, src, vlan: self.vlan, content };
        let bytes = described.build().map_err(|e| Failure::usage(format!("no such frame: {e}")))?;
        Ok((bytes, described.to_string()))
    }
}

fn raw_frame(hex: &str) -> Result<(Vec<u8>, String), Failure> {
    let bytes = parse::hex(hex).map_err(|e| Failure::usage(format!("--hex: {e}")))?;
    if !(14..=MAX_LEN).contains(&bytes.len()) {
        return Err(Failure::usage(format!("--hex: a frame of {} bytes", bytes.len()))
            .remedy(format!("give 14 to {MAX_LEN} bytes, from the destination address on, without FCS")));
    }
    Ok((bytes, "given bytes".into()))
}

/// The MAC address of the VM at a port, which is what its frames would have as source.
async fn vm_behind(hand: &Hand, name: &str) -> Result<Mac, Failure> {
    let ports = port::ports(hand).await?;
    let Some(found) = ports.iter().find(|p| p.name == name) else {
        let known: Vec<String> = ports.into_iter().map(|p| p.name).collect();
        return Err(suggest::unknown("port", name, &known, "godwitctl port list"));
    };
    found.key.map(|k| Mac::from_u64(k.mac)).ok_or_else(|| {
        Failure::usage(format!("port {name} has no VM that would be the frame's source"))
            .remedy("give --src, or a whole frame with --hex")
    })
}

/// Runs the command.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(a: &TraceArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let hand = ctx.link.nve(a.target.nve.as_deref()).await?;
    let (bytes, description) = a.frame(&hand).await?;
    let ask = Ask::Trace(v1::Trace { port: a.port.clone(), frame: bytes.clone() });
    match hand.ask(ask).await? {
        Answer::Trace(result) => ctx.show(&TraceView {
            port: a.port.clone(),
            frame: description,
            frame_hex: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            frame_bytes: bytes.len(),
            worker: result.worker,
            steps: result.steps,
            verdict: result.verdict,
        }),
        _ => Err(unexpected(&hand.peer())),
    }
}
