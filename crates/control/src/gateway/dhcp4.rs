//! DHCP for IPv4 (RFC 2131): the gateway is the server, and the VM's record its database.
//!
//! The crate's eager decoder panics on some options and hardware addresses that a guest may send. So the message is
//! read by its lazy one, once its first bytes are checked, and only the options that the server needs are decoded.

use std::net::{IpAddr, Ipv4Addr};

use dhcproto::Encodable as _;
use dhcproto::v4::borrowed::Message as Received;
use dhcproto::v4::{
    CLIENT_PORT, DhcpOption, Encoder, HType, MAGIC, Message, MessageType, Opcode, OptionCode, SERVER_PORT,
};
use godwit_model::{Dhcp, Subnet};
use godwit_wire::Mac;

use super::{Client, Outcome, frames};

/// Bytes of a message before its options.
const HEADER_LEN: usize = 240;
/// Where the magic cookie begins.
const COOKIE: usize = 236;
/// BOOTP's shortest message, in bytes; some clients take none that is shorter (RFC 1542 section 2.1).
const MIN_LEN: usize = 300;
/// Longest client identifier that is echoed, in bytes: what fits into one option.
const MAX_CLIENT_ID: usize = 255;
/// DNS servers that a client is told.
const MAX_DNS: usize = 16;
/// A lease without end (RFC 2131 section 3.3).
const INFINITE: u32 = u32::MAX;

/// What a client says.
struct Request {
    kind: MessageType,
    xid: u32,
    broadcast: bool,
    ciaddr: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client_id: Option<Vec<u8>>,
}

impl Request {
    /// Of a message that the VM itself sent, by no relay.
    fn read(message: &[u8], mac: Mac) -> Option<Request> {
        // Op code, hardware type and length of its addresses: 1 is Ethernet.
        let [1, 1, 6, ..] = message else { return None };
        if message.get(COOKIE..HEADER_LEN)? != MAGIC {
            return None;
        }
        let read = Received::new(message).ok()?;
        if read.chaddr() != mac.0 || !read.giaddr().is_unspecified() {
            return None;
        }
        let mut request = Request {
            kind: MessageType::Unknown(0),
            xid: read.xid(),
            broadcast: read.flags().broadcast(),
            ciaddr: read.ciaddr(),
            requested: None,
            server: None,
            client_id: None,
        };
        for option in read.opts() {
            match option.code() {
                OptionCode::MessageType
                | OptionCode::RequestedIpAddress
                | OptionCode::ServerIdentifier
                | OptionCode::ClientIdentifier => request.take(option.into_option().ok()?)?,
                _ => {}
            }
        }
        Some(request)
    }

    fn take(&mut self, option: DhcpOption) -> Option<()> {
        match option {
            DhcpOption::MessageType(kind) => self.kind = kind,
            DhcpOption::RequestedIpAddress(ip) => self.requested = Some(ip),
            DhcpOption::ServerIdentifier(ip) => self.server = Some(ip),
            DhcpOption::ClientIdentifier(id) if id.len() <= MAX_CLIENT_ID => self.client_id = Some(id),
            _ => return None,
        }
        Some(())
    }
}

/// An address that the client may have.
#[derive(Clone, Copy)]
struct Lease<'a> {
    ip: Ipv4Addr,
    subnet: &'a Subnet,
    server: Ipv4Addr,
    dhcp: &'a Dhcp,
}

/// What the gateway has for the client in the subnet that `ip` is in.
fn lease<'a>(client: &Client<'a>, ip: Ipv4Addr) -> Option<Lease<'a>> {
    let subnet = client.subnets.iter().find(|s| s.prefix.contains(ip.into()))?;
    let IpAddr::V4(server) = subnet.gateway else { return None };
    Some(Lease { ip, subnet, server, dhcp: subnet.dhcp.as_ref()? })
}

/// What becomes of a message of the VM.
pub(crate) fn answer(client: &Client<'_>, message: &[u8]) -> Outcome {
    let Some(request) = Request::read(message, client.key.mac) else { return Outcome::Refused };
    let recorded =
        client.recorded.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
    let leases: Vec<Lease<'_>> = recorded.filter_map(|ip| lease(client, ip)).collect();
    let wanted = |ip: Ipv4Addr| leases.iter().find(|l| l.ip == ip).copied();
    let (Some(first), reply) = (leases.first().copied(), Reply { client, request: &request }) else {
        return Outcome::Unrecorded;
    };
    match request.kind {
        MessageType::Discover => {
            reply.offer(request.requested.and_then(wanted).unwrap_or(first), MessageType::Offer)
        }
        MessageType::Request => {
            if request.server.is_some_and(|s| leases.iter().all(|l| l.server != s)) {
                return Outcome::Refused; // The client chose another server.
            }
            // Renewing and rebinding clients have the address and name it nowhere else (RFC 2131 section 4.3.2).
            let named = request.requested.unwrap_or(request.ciaddr);
            match wanted(named) {
                Some(lease) => reply.offer(lease, MessageType::Ack),
                None => reply.nak(first),
            }
        }
        MessageType::Inform => match lease(client, request.ciaddr) {
            Some(lease) => reply.inform(lease),
            None => Outcome::Refused,
        },
        MessageType::Release => Outcome::Released(None),
        MessageType::Decline => Outcome::Declined(request.requested.unwrap_or(request.ciaddr).into(), None),
        _ => Outcome::Refused,
    }
}

/// Makes the answer to a request.
#[derive(Clone, Copy)]
struct Reply<'a> {
    client: &'a Client<'a>,
    request: &'a Request,
}

impl Reply<'_> {
    /// An address, for good with `Ack`.
    fn offer(self, lease: Lease<'_>, kind: MessageType) -> Outcome {
        let ciaddr = if kind == MessageType::Ack { self.request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        let mut message = self.message(kind, (ciaddr, lease.ip), lease.server);
        let seconds = lease.dhcp.lease_s;
        let part = |of: u64, by: u64| match seconds {
            INFINITE => INFINITE,
            s => u32::try_from(u64::from(s) * of / by).unwrap_or(INFINITE),
        };
        let options = message.opts_mut();
        options.insert(DhcpOption::AddressLeaseTime(seconds));
        options.insert(DhcpOption::Renewal(part(1, 2)));
        options.insert(DhcpOption::Rebinding(part(7, 8)));
        self.settings(&mut message, lease);
        self.send(&message, lease.server, Some(lease.ip))
    }

    /// Settings for a client that has its address already.
    fn inform(self, lease: Lease<'_>) -> Outcome {
        let addresses = (self.request.ciaddr, Ipv4Addr::UNSPECIFIED);
        let mut message = self.message(MessageType::Ack, addresses, lease.server);
        self.settings(&mut message, lease);
        self.send(&message, lease.server, None)
    }

    /// The client is to begin anew: the address that it has, or wants, is not in its record.
    fn nak(self, lease: Lease<'_>) -> Outcome {
        let nobody = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        let message = self.message(MessageType::Nak, nobody, lease.server);
        self.datagram(&message, lease.server, (Mac::BROADCAST, Ipv4Addr::BROADCAST))
    }

    fn message(self, kind: MessageType, (ciaddr, yiaddr): (Ipv4Addr, Ipv4Addr), server: Ipv4Addr) -> Message {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let chaddr = self.client.key.mac.0;
        let mut message = Message::new_with_id(self.request.xid, ciaddr, yiaddr, nobody, nobody, &chaddr);
        message.set_opcode(Opcode::BootReply).set_htype(HType::Eth);
        if self.request.broadcast {
            message.set_flags(dhcproto::v4::Flags::default().set_broadcast());
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(server));
        if let Some(id) = &self.request.client_id {
            // RFC 6842 section 3.
            options.insert(DhcpOption::ClientIdentifier(id.clone()));
        }
        message
    }

    fn settings(self, message: &mut Message, lease: Lease<'_>) {
        let len = lease.subnet.prefix.prefix_len().min(32);
        let mask = u32::MAX.checked_shl(u32::from(32 - len)).unwrap_or(0);
        let options = message.opts_mut();
        options.insert(DhcpOption::SubnetMask(mask.into()));
        options.insert(DhcpOption::Router(vec![lease.server]));
        options.insert(DhcpOption::InterfaceMtu(self.client.mtu));
        // Point-to-point links and single addresses have none (RFC 3021).
        if len <= 30 {
            options.insert(DhcpOption::BroadcastAddr((u32::from(lease.ip) | !mask).into()));
        }
        let dns =
            lease.dhcp.dns.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        let dns: Vec<Ipv4Addr> = dns.take(MAX_DNS).collect();
        if !dns.is_empty() {
            options.insert(DhcpOption::DomainNameServer(dns));
        }
    }

    /// To where the client hears it (RFC 2131 section 4.1); `new` is the address that it gets.
    fn send(self, message: &Message, server: Ipv4Addr, new: Option<Ipv4Addr>) -> Outcome {
        let mac = self.client.key.mac;
        let to = match (self.request.ciaddr, new) {
            (ciaddr, _) if !ciaddr.is_unspecified() => (mac, ciaddr),
            (_, Some(new)) if !self.request.broadcast => (mac, new),
            _ => (Mac::BROADCAST, Ipv4Addr::BROADCAST),
        };
        self.datagram(message, server, to)
    }

    fn datagram(self, message: &Message, server: Ipv4Addr, (mac, ip): (Mac, Ipv4Addr)) -> Outcome {
        let mut bytes = Vec::new();
        if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
            return Outcome::Refused;
        }
        bytes.resize(bytes.len().max(MIN_LEN), 0);
        let (macs, ips) = ((self.client.gateway, mac), (server.into(), ip.into()));
        match frames::udp(macs, ips, (SERVER_PORT, CLIENT_PORT), &bytes) {
            Some(frame) => Outcome::Answer(frame),
            None => Outcome::Refused,
        }
    }
}
