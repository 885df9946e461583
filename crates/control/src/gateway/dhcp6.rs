//! DHCP for IPv6 (RFC 8415): the gateway is the server, and the VM's record its database. No prefixes are delegated,
//! and no temporary addresses given.
//!
//! Before a message is decoded, what the server does not need is left out of it ([`sieve`]): the crate's decoders of
//! some other options trust lengths that a guest may choose.

use std::net::{IpAddr, Ipv6Addr};

use dhcproto::v6::{
    CLIENT_PORT, Decodable, Decoder, DhcpOption, DhcpOptions, Encodable, Encoder, IAAddr, IANA, IAPD, IATA,
    Message, MessageType, OptionCode, SERVER_PORT, Status, StatusCode,
};
use godwit_model::{Dhcp, Subnet};
use godwit_wire::Mac;

use super::{Client, Outcome, frames};

/// Bytes of a message before its options, and of an option's header.
const HEADER_LEN: usize = 4;
/// Longest identifier of a client or server, in bytes (RFC 8415 section 11.1).
const MAX_DUID: usize = 130;
/// Identity associations in a message.
const MAX_IAS: usize = 8;
/// DNS servers that a client is told.
const MAX_DNS: usize = 16;
/// A lifetime without end (RFC 8415 section 7.7).
const INFINITE: u32 = u32::MAX;
/// The server is the only one: clients need not wait for others (RFC 8415 section 18.2.1).
const PREFERENCE: u8 = 255;

/// Copies what the server reads from the options of a message, or of an identity association. None where an option is
/// cut off.
fn sieve(mut options: &[u8], within: bool, into: &mut Vec<u8>) -> Option<()> {
    while !options.is_empty() {
        let (&[c0, c1, l0, l1], rest) = options.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        options = rest;
        // Of associations, the fields before their options.
        let code = OptionCode::from(u16::from_be_bytes([c0, c1]));
        let head = match code {
            OptionCode::ClientId | OptionCode::ServerId if !within && value.len() <= MAX_DUID => value.len(),
            OptionCode::RapidCommit if !within => 0,
            OptionCode::IANA | OptionCode::IAPD if !within => 12,
            OptionCode::IATA if !within => 4,
            OptionCode::IAAddr if within => 24,
            _ => continue,
        };
        let (head, inner) = value.split_at_checked(head)?;
        let mut body = head.to_vec();
        if code == OptionCode::IANA {
            sieve(inner, true, &mut body)?;
        }
        into.extend([c0, c1]);
        into.extend(u16::try_from(body.len()).ok()?.to_be_bytes());
        into.extend(body);
    }
    Some(())
}

/// The message without what the server does not read.
fn read(message: &[u8]) -> Option<Message> {
    let (head, options) = message.split_at_checked(HEADER_LEN)?;
    let mut sieved = head.to_vec();
    sieve(options, false, &mut sieved)?;
    Message::decode(&mut Decoder::new(&sieved)).ok()
}

/// An address that the client may have.
#[derive(Clone, Copy)]
struct Lease<'a> {
    ip: Ipv6Addr,
    dhcp: &'a Dhcp,
}

/// A client's message, and what there is for it.
struct Exchange<'a> {
    client: &'a Client<'a>,
    request: Message,
    leases: Vec<Lease<'a>>,
    /// MAC and address of the client.
    from: (Mac, Ipv6Addr),
}

/// What a message wants of its identity associations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Addresses.
    Get,
    /// Those that it has for longer.
    Extend,
    /// To give them up.
    GiveUp,
}

/// What becomes of a message of the VM, which came from `mac` and `src` to `dst`.
pub(crate) fn answer(
    client: &Client<'_>,
    mac: Mac,
    (src, dst): (Ipv6Addr, Ipv6Addr),
    message: &[u8],
) -> Outcome {
    let Some(request) = read(message).filter(|_| src.is_unicast_link_local()) else {
        return Outcome::Refused;
    };
    let recorded =
        client.recorded.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
    let lease = |ip: Ipv6Addr| {
        let subnet = client.subnets.iter().find(|s| s.prefix.contains(ip.into()))?;
        Some(Lease { ip, dhcp: subnet.dhcp.as_ref()? })
    };
    let leases = recorded.filter_map(lease).collect();
    let exchange = Exchange { client, request, leases, from: (mac, src) };
    if !exchange.is_valid(dst) { Outcome::Refused } else { exchange.answer() }
}

impl<'a> Exchange<'a> {
    /// The identifier of the server: of its link-layer address, which is the same at every NVE (RFC 8415 section 11.4).
    fn server_id(&self) -> Vec<u8> {
        let mut duid = vec![0, 3, 0, 1];
        duid.extend(self.client.gateway.0);
        duid
    }

    /// RFC 8415 section 16: who may say what, with which identifiers. This server takes nothing that is sent to an
    /// address of its own.
    fn is_valid(&self, dst: Ipv6Addr) -> bool {
        let options = self.request.opts();
        let has_client = options.get(OptionCode::ClientId).is_some();
        let to_us = options.get(OptionCode::ServerId).map(|o| *o == DhcpOption::ServerId(self.server_id()));
        let identified = match self.request.msg_type() {
            MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => {
                has_client && to_us.is_none()
            }
            MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline => {
                has_client && to_us == Some(true)
            }
            MessageType::InformationRequest => to_us != Some(false) && self.count() == 0,
            _ => false,
        };
        identified && dst.is_multicast() && self.count() <= MAX_IAS
    }

    fn all(&self, code: OptionCode) -> &[DhcpOption] {
        self.request.opts().get_all(code).unwrap_or_default()
    }

    /// Identity associations.
    fn count(&self) -> usize {
        [OptionCode::IANA, OptionCode::IATA, OptionCode::IAPD].into_iter().map(|c| self.all(c).len()).sum()
    }

    fn associations(&self) -> impl DoubleEndedIterator<Item = &IANA> {
        self.all(OptionCode::IANA)
            .iter()
            .filter_map(|o| if let DhcpOption::IANA(ia) = o { Some(ia) } else { None })
    }

    fn answer(&self) -> Outcome {
        let kind = self.request.msg_type();
        // A client that renews is told that it has nothing any more; others wait for their record.
        let needs = matches!(kind, MessageType::Solicit | MessageType::Request | MessageType::Rebind);
        if needs && self.leases.is_empty() {
            return Outcome::Unrecorded;
        }
        match kind {
            MessageType::Solicit if self.request.opts().get(OptionCode::RapidCommit).is_some() => {
                let mut reply = self.associated(MessageType::Reply, Wish::Get);
                reply.opts_mut().insert(DhcpOption::RapidCommit);
                self.reply(reply)
            }
            MessageType::Solicit => {
                let mut reply = self.associated(MessageType::Advertise, Wish::Get);
                reply.opts_mut().insert(DhcpOption::Preference(PREFERENCE));
                self.reply(reply)
            }
            MessageType::Request => self.reply(self.associated(MessageType::Reply, Wish::Get)),
            MessageType::Renew | MessageType::Rebind => {
                self.reply(self.associated(MessageType::Reply, Wish::Extend))
            }
            MessageType::Confirm => self.confirm(),
            MessageType::InformationRequest => self.inform(),
            MessageType::Release => Outcome::Released(self.given_up()),
            MessageType::Decline => {
                let named = self.associations().flat_map(addresses).next();
                named.map_or(Outcome::Refused, |ip| Outcome::Declined(ip.into(), self.given_up()))
            }
            _ => Outcome::Refused,
        }
    }

    // ---- Kinds of answers ----

    fn head(&self, kind: MessageType) -> Message {
        let mut reply = Message::new_with_id(kind, self.request.xid());
        if let Some(id) = self.request.opts().get(OptionCode::ClientId) {
            reply.opts_mut().insert(id.clone());
        }
        reply.opts_mut().insert(DhcpOption::ServerId(self.server_id()));
        reply
    }

    /// With an answer to each identity association, and settings.
    fn associated(&self, kind: MessageType, wish: Wish) -> Message {
        let mut reply = self.head(kind);
        self.answer_associations(wish, reply.opts_mut());
        self.settings(&mut reply, self.leases.iter().map(|l| l.dhcp));
        reply
    }

    /// All addresses of the client's are of the link, or not (RFC 8415 section 18.3.3).
    fn confirm(&self) -> Outcome {
        let mut all = self.associations().flat_map(addresses).peekable();
        if all.peek().is_none() {
            return Outcome::Refused;
        }
        let code = if all.all(|ip| self.is_on_link(ip)) { Status::Success } else { Status::NotOnLink };
        let mut reply = self.head(MessageType::Reply);
        reply.opts_mut().insert(status(code));
        self.reply(reply)
    }

    /// Settings without addresses: any VM of the VN may have them.
    fn inform(&self) -> Outcome {
        let v6 = |s: &&Subnet| s.prefix.addr().is_ipv6();
        let mut dhcp = self.client.subnets.iter().filter(v6).filter_map(|s| s.dhcp.as_ref()).peekable();
        if dhcp.peek().is_none() {
            return Outcome::Refused;
        }
        let mut reply = self.head(MessageType::Reply);
        self.settings(&mut reply, dhcp);
        self.reply(reply)
    }

    fn given_up(&self) -> Option<Vec<u8>> {
        let mut reply = self.head(MessageType::Reply);
        reply.opts_mut().insert(status(Status::Success));
        self.answer_associations(Wish::GiveUp, reply.opts_mut());
        self.frame(&reply)
    }

    fn settings<'b>(&self, reply: &mut Message, dhcp: impl Iterator<Item = &'b Dhcp>) {
        let mut dns: Vec<Ipv6Addr> = Vec::new();
        for ip in dhcp.flat_map(|d| &d.dns) {
            match ip {
                IpAddr::V6(ip) if !dns.contains(ip) && dns.len() < MAX_DNS => dns.push(*ip),
                _ => {}
            }
        }
        if !dns.is_empty() {
            reply.opts_mut().insert(DhcpOption::DomainNameServers(dns));
        }
    }

    // ---- Identity associations ----

    fn answer_associations(&self, wish: Wish, into: &mut DhcpOptions) {
        let chosen = self.chosen();
        // The crate puts an option before others of its kind.
        for ia in self.associations().rev() {
            if let Some(opts) = self.association(ia, chosen == Some(ia.id), wish) {
                let (t1, t2) = self.renewal(&opts);
                into.insert(DhcpOption::IANA(IANA { id: ia.id, t1, t2, opts }));
            }
        }
        if wish == Wish::GiveUp {
            return;
        }
        for ia in self.all(OptionCode::IATA) {
            if let DhcpOption::IATA(ia) = ia {
                let opts = only(status(Status::NoAddrsAvail));
                into.insert(DhcpOption::IATA(IATA { id: ia.id, opts }));
            }
        }
        for ia in self.all(OptionCode::IAPD) {
            if let DhcpOption::IAPD(ia) = ia {
                let opts = only(status(Status::NoPrefixAvail));
                into.insert(DhcpOption::IAPD(IAPD { id: ia.id, t1: 0, t2: 0, opts }));
            }
        }
    }

    /// An address is in one association only: in the one that has it already, else in the first.
    fn chosen(&self) -> Option<u32> {
        let has = |ia: &&IANA| addresses(ia).any(|ip| self.lease(ip).is_some());
        self.associations().find(has).map(|ia| ia.id).or(self.associations().map(|ia| ia.id).min())
    }

    fn lease(&self, ip: Ipv6Addr) -> Option<Lease<'a>> {
        self.leases.iter().find(|l| l.ip == ip).copied()
    }

    /// In a subnet of the VN.
    fn is_on_link(&self, ip: Ipv6Addr) -> bool {
        self.client.subnets.iter().any(|s| s.prefix.contains(ip.into()))
    }

    /// What an association gets; none: nothing is to be said of it.
    fn association(&self, ia: &IANA, chosen: bool, wish: Wish) -> Option<DhcpOptions> {
        let foreign = |ip: &Ipv6Addr| !self.is_on_link(*ip);
        let has_none = !chosen || self.leases.is_empty();
        match wish {
            Wish::GiveUp if addresses(ia).any(|ip| self.lease(ip).is_some()) => None,
            Wish::GiveUp => Some(only(status(Status::NoBinding))),
            Wish::Get
                if self.request.msg_type() == MessageType::Request
                    && addresses(ia).any(|ip| foreign(&ip)) =>
            {
                Some(only(status(Status::NotOnLink)))
            }
            Wish::Get if has_none => Some(only(status(Status::NoAddrsAvail))),
            Wish::Extend if has_none => Some(only(status(Status::NoBinding))),
            Wish::Get => Some(self.leases.iter().map(|l| address(l.ip, l.dhcp.lease_s)).collect()),
            // What the client has and is not in its record, it is to use no longer (RFC 8415 section 18.3.4).
            Wish::Extend => {
                let lost = addresses(ia).filter(|ip| self.lease(*ip).is_none()).map(|ip| address(ip, 0));
                Some(self.leases.iter().map(|l| address(l.ip, l.dhcp.lease_s)).chain(lost).collect())
            }
        }
    }

    /// T1 and T2, in seconds: half and four fifths of the shortest lease, as RFC 8415 section 21.4 has it.
    fn renewal(&self, opts: &DhcpOptions) -> (u32, u32) {
        let life = |o: &DhcpOption| if let DhcpOption::IAAddr(a) = o { Some(a.valid_life) } else { None };
        match opts.iter().filter_map(life).filter(|s| *s > 0).min() {
            None => (0, 0),
            Some(INFINITE) => (INFINITE, INFINITE),
            Some(s) => (s / 2, u32::try_from(u64::from(s) * 4 / 5).unwrap_or(INFINITE)),
        }
    }

    // ---- The frame ----

    fn reply(&self, reply: Message) -> Outcome {
        self.frame(&reply).map_or(Outcome::Refused, Outcome::Answer)
    }

    fn frame(&self, reply: &Message) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        reply.encode(&mut Encoder::new(&mut bytes)).ok()?;
        let (gateway, (mac, ip)) = (self.client.gateway, self.from);
        let ips = (gateway.link_local().into(), ip.into());
        frames::udp((gateway, mac), ips, (SERVER_PORT, CLIENT_PORT), &bytes)
    }
}

/// The addresses that a client names in an association.
fn addresses(ia: &IANA) -> impl Iterator<Item = Ipv6Addr> {
    ia.opts.iter().filter_map(|o| if let DhcpOption::IAAddr(a) = o { Some(a.addr) } else { None })
}

fn address(addr: Ipv6Addr, life: u32) -> DhcpOption {
    DhcpOption::IAAddr(IAAddr { addr, preferred_life: life, valid_life: life, opts: DhcpOptions::new() })
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: String::new() })
}

fn only(option: DhcpOption) -> DhcpOptions {
    [option].into_iter().collect()
}
