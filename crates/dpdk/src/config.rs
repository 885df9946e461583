//! What a port can do, what is asked of it, and what comes of the two.

use std::sync::Arc;

use dpdk_sys::{godwit_dev_info, godwit_port_conf};

use crate::mempool::Mempool;

/// Ethernet header and FCS: what an untagged frame has beyond its MTU.
const HEADER_AND_FCS: u32 = 14 + 4;

/// A VLAN tag.
const TAG: u32 = 4;

/// The same with two VLAN tags.
const OVERHEAD: u32 = HEADER_AND_FCS + 8;

/// The MTU that DPDK sets where it is told none.
const USUAL_MTU: u16 = 1500;

/// Drivers that refuse to run with unequal numbers of receive and transmit queues.
const PAIRED: [&str; 2] = ["net_tap", "net_af_xdp"];

/// Drivers that claim to report changes of the link and never call anyone. Without the claim DPDK asks
/// them each time the link is read, which gives its true state.
const MUTE: [&str; 2] = ["net_tap", crate::bond_driver::DRIVER];

/// Drivers that loop a port back on demand: what is sent is received and, with the link off, seen by nobody.
const LOOPS: [&str; 6] = ["net_ixgbe", "net_igc", "net_txgbe", "net_ngbe", "net_cn9k", "net_cn10k"];

/// Drivers whose frames the receiving core has just written, or nobody: it copies each into its buffer, and
/// `net_null` makes none, which whoever wants some does in a receive callback.
const COPIES: [&str; 7] =
    ["vhost", "net_vhost", "net_memif", "net_tap", "net_af_packet", "net_pcap", "net_null"];

/// How to set a port up.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue. The pool needs as many buffers for each queue, and more.
    pub rx_desc: u16,
    /// Descriptors of each transmit queue.
    pub tx_desc: u16,
    /// The largest IP packet in bytes; `None` leaves the device's own.
    pub mtu: Option<u16>,
    /// Frames have an 802.1Q tag, which `mtu` does not count.
    pub tagged: bool,
    /// Spread flows over the receive queues by IP addresses and ports. The hash itself is not asked for: nobody
    /// uses it, and a device that need not write it has less to do for each frame.
    pub rss: bool,
    /// Receive frames for all addresses.
    pub promiscuous: bool,
    /// Have the NIC fill in UDP checksums of frames that ask for it by their flags.
    pub tx_checksums: bool,
    /// Loop the port back: what is sent is received. For drivers with [`DevInfo::loops`]; others ignore it.
    pub loopback: bool,
    /// A guest is behind the port: take frames that it left unfinished, and hand such frames to it
    /// ([`crate::Port::guest_receive_offloads`]). For vhost-user ports, whose guests are offered nothing of the kind
    /// otherwise; others ignore it.
    pub guest_offloads: bool,
    /// The guest's memory may be missing for a while. For vhost-user ports; others ignore it.
    pub postcopy: bool,
    /// Further offloads as DPDK's bits (`RTE_ETH_RX_OFFLOAD_*`), of which those are switched on that the
    /// device has: what a guest's own end of a port asks for.
    pub more_rx_offloads: u64,
    /// The same for sending (`RTE_ETH_TX_OFFLOAD_*`).
    pub more_tx_offloads: u64,
    /// Where received frames go.
    pub mempool: Arc<Mempool>,
}

impl PortConfig {
    /// One queue each way, 1,024 descriptors, promiscuous, no RSS, no offloads, the device's MTU.
    pub fn new(mempool: Arc<Mempool>) -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: None,
            tagged: false,
            rss: false,
            promiscuous: true,
            tx_checksums: false,
            loopback: false,
            guest_offloads: false,
            postcopy: false,
            more_rx_offloads: 0,
            more_tx_offloads: 0,
            mempool,
        }
    }
}

/// What a device can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevInfo {
    /// The driver's name, such as `net_tap`.
    pub driver: String,
    /// The kernel interface behind the port, where there is one.
    pub if_index: Option<u32>,
    /// The smallest MTU in bytes.
    pub min_mtu: u16,
    /// The largest MTU in bytes.
    pub max_mtu: u16,
    /// The most receive queues.
    pub max_rx_queues: u16,
    /// The most transmit queues.
    pub max_tx_queues: u16,
    /// Descriptors of a receive queue, fewest and most.
    pub rx_desc: (u16, u16),
    /// Descriptors of a transmit queue, fewest and most.
    pub tx_desc: (u16, u16),
    /// Entries of the table that RSS spreads flows by.
    pub reta_size: u16,
    /// Receive offloads (`RTE_ETH_RX_OFFLOAD_*`).
    pub rx_offloads: u64,
    /// Transmit offloads (`RTE_ETH_TX_OFFLOAD_*`).
    pub tx_offloads: u64,
    /// What RSS can hash over (`RTE_ETH_RSS_*`); 0: no RSS.
    pub rss_types: u64,
    /// The driver reports changes of the link by itself; otherwise poll for them.
    pub link_events: bool,
    /// The driver reports the device's removal by itself.
    pub removal_events: bool,
    /// What a frame has beyond the MTU, as the driver reckons it, in bytes.
    pub overhead: u32,
}

impl DevInfo {
    pub(crate) fn new(info: &godwit_dev_info, driver: String) -> Self {
        Self {
            if_index: (info.if_index != 0).then_some(info.if_index),
            min_mtu: info.min_mtu,
            max_mtu: max_mtu(info),
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            rx_desc: (info.rx_desc_min, info.rx_desc_max),
            tx_desc: (info.tx_desc_min, info.tx_desc_max),
            reta_size: info.reta_size,
            rx_offloads: info.rx_offload_capa,
            tx_offloads: info.tx_offload_capa,
            rss_types: info.rss_types,
            link_events: info.intr_lsc != 0 && !MUTE.contains(&driver.as_str()),
            driver,
            removal_events: info.intr_rmv != 0,
            overhead: overhead(info),
        }
    }

    /// Of a port without a device: what is software's only.
    pub(crate) fn of_software(driver: &str, queues: u16) -> Self {
        Self {
            driver: driver.into(),
            if_index: None,
            min_mtu: 68,
            max_mtu: u16::MAX,
            max_rx_queues: queues,
            max_tx_queues: queues,
            rx_desc: (0, u16::MAX),
            tx_desc: (0, u16::MAX),
            reta_size: 0,
            rx_offloads: 0,
            tx_offloads: 0,
            rss_types: 0,
            link_events: true,
            removal_events: false,
            overhead: HEADER_AND_FCS,
        }
    }

    /// The driver can loop the port back ([`PortConfig::loopback`]).
    pub fn loops(&self) -> bool {
        LOOPS.contains(&self.driver.as_str())
    }

    /// Who receives a frame has just copied it, so that its bytes are in the core's cache; otherwise the device
    /// has put it into memory.
    pub fn copies(&self) -> bool {
        copies(&self.driver)
    }

    /// The NIC can fill in UDP checksums. Of IPv4's own nothing is asked: that is two additions for the switch,
    /// and there are devices (virtio's) that do the one and not the other.
    pub fn tx_checksums(&self) -> bool {
        self.tx_offloads & Offloads::get().tx_checksums == Offloads::get().tx_checksums
    }
}

/// See [`DevInfo::copies`].
pub(crate) fn copies(driver: &str) -> bool {
    COPIES.contains(&driver)
}

/// As DPDK reckons it: where a driver states both, their difference is what it adds to the MTU.
fn overhead(info: &godwit_dev_info) -> u32 {
    match info.max_rx_pktlen.checked_sub(info.max_mtu.into()) {
        Some(beyond) if info.max_mtu != u16::MAX && beyond > 0 => beyond,
        _ => HEADER_AND_FCS,
    }
}

/// What the device's MTU has to be larger than that of the packets behind a tag (R95): many drivers count one or
/// two tags beyond the MTU anyway.
pub(crate) fn tag_allowance(info: &DevInfo, asked: &PortConfig, copies: bool) -> u16 {
    let counted = copies || info.overhead >= HEADER_AND_FCS + TAG;
    if asked.tagged && !counted { TAG as u16 } else { 0 }
}

/// The largest MTU that DPDK accepts. Drivers that claim no limit often have one on the frame's length.
fn max_mtu(info: &godwit_dev_info) -> u16 {
    let stated = info.max_mtu != u16::MAX && info.max_rx_pktlen > u32::from(info.max_mtu);
    if stated || info.max_rx_pktlen == 0 {
        return info.max_mtu;
    }
    let by_frame = info.max_rx_pktlen.saturating_sub(HEADER_AND_FCS);
    info.max_mtu.min(u16::try_from(by_frame).unwrap_or(u16::MAX))
}

/// What a port was really given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigReport {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue.
    pub rx_desc: u16,
    /// Descriptors of each transmit queue.
    pub tx_desc: u16,
    /// The largest IP packet in bytes.
    pub mtu: u16,
    /// Flows are spread over the receive queues.
    pub rss: bool,
    /// All addresses are received.
    pub promiscuous: bool,
    /// The NIC fills in UDP checksums.
    pub tx_checksums: bool,
    /// Frames come and may go unfinished.
    pub guest_offloads: bool,
    /// Sentences on what differs from what was asked for.
    pub notes: Vec<String>,
}

/// DPDK's offload bits.
#[derive(Clone, Copy)]
struct Offloads {
    scatter: u64,
    tx_checksums: u64,
    rss_types: u64,
}

impl Offloads {
    fn get() -> Self {
        // SAFETY: constants of the shim, never written.
        unsafe {
            Self {
                scatter: dpdk_sys::GODWIT_RX_OFFLOAD_SCATTER,
                tx_checksums: dpdk_sys::GODWIT_TX_OFFLOAD_UDP_CKSUM,
                rss_types: dpdk_sys::GODWIT_RSS_IP_UDP_TCP,
            }
        }
    }
}

/// Fits what is asked for to what the device can do: DPDK's configuration, and the report so far.
/// `data_room` is what one buffer of the pool holds, in bytes.
pub(crate) fn plan(
    info: &DevInfo,
    asked: &PortConfig,
    allowance: u16,
    data_room: u16,
) -> (godwit_port_conf, ConfigReport) {
    let offloads = Offloads::get();
    let mut report = ConfigReport::default();
    (report.rx_queues, report.tx_queues) = plan_queues(info, asked, &mut report.notes);
    let mut conf = godwit_port_conf {
        rx_queues: report.rx_queues,
        tx_queues: report.tx_queues,
        mtu: plan_mtu(info, asked.mtu.map(|mtu| mtu.saturating_add(allowance)), &mut report.notes),
        intr_lsc: info.link_events.into(),
        intr_rmv: info.removal_events.into(),
        loopback: (asked.loopback && info.loops()).into(),
        rx_offloads: info.rx_offloads & asked.more_rx_offloads,
        tx_offloads: info.tx_offloads & asked.more_tx_offloads,
        ..godwit_port_conf::default()
    };
    if asked.rss {
        conf.rss_types = info.rss_types & offloads.rss_types;
        report.rss = conf.rss_types != 0;
        if !report.rss {
            report.notes.push(format!("{} has no RSS over IP, UDP or TCP", info.driver));
        }
    }
    if asked.tx_checksums {
        report.tx_checksums = info.tx_checksums();
        if report.tx_checksums {
            conf.tx_offloads |= offloads.tx_checksums;
        } else {
            report.notes.push(format!("{} does not fill in UDP checksums", info.driver));
        }
    }
    if u32::from(conf.mtu) + OVERHEAD > u32::from(data_room) {
        conf.rx_offloads |= info.rx_offloads & offloads.scatter;
        report.notes.push(format!(
            "frames of an MTU of {} bytes exceed a buffer's {data_room} and arrive in several segments or not at all",
            conf.mtu
        ));
    }
    (conf, report)
}

fn plan_queues(info: &DevInfo, asked: &PortConfig, notes: &mut Vec<String>) -> (u16, u16) {
    let mut fit = |what: &str, asked: u16, max: u16| {
        let got = asked.max(1).min(max);
        if got != asked {
            notes.push(format!("{asked} {what} queues asked for, {} takes {got}", info.driver));
        }
        got
    };
    let rx = fit("receive", asked.rx_queues, info.max_rx_queues);
    let tx = fit("transmit", asked.tx_queues, info.max_tx_queues);
    if rx == tx || !PAIRED.contains(&info.driver.as_str()) {
        return (rx, tx);
    }
    let both = rx.max(tx).min(info.max_rx_queues).min(info.max_tx_queues);
    notes.push(format!("{} needs as many receive as transmit queues: {both} of each", info.driver));
    (both, both)
}

/// The MTU to configure; 0 leaves it to DPDK.
fn plan_mtu(info: &DevInfo, asked: Option<u16>, notes: &mut Vec<String>) -> u16 {
    let Some(asked) = asked else {
        return if info.max_mtu < USUAL_MTU { info.max_mtu } else { 0 };
    };
    let got = asked.min(info.max_mtu).max(info.min_mtu);
    if got != asked {
        notes.push(format!("an MTU of {asked} bytes asked for, {} takes {got}", info.driver));
    }
    got
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Eal, EalConfig, HugePages};

    /// `RTE_ETH_TX_OFFLOAD_IPV4_CKSUM`, `_UDP_CKSUM`, `_TCP_CKSUM`.
    const IPV4: u64 = 1 << 1;
    const UDP: u64 = 1 << 2;
    const TCP: u64 = 1 << 3;
    /// `RTE_ETH_RX_OFFLOAD_RSS_HASH`.
    const RSS_HASH: u64 = 1 << 19;

    fn device(tx_offloads: u64) -> DevInfo {
        DevInfo {
            driver: "net_virtio".into(),
            if_index: None,
            min_mtu: 68,
            max_mtu: 9000,
            max_rx_queues: 4,
            max_tx_queues: 4,
            rx_desc: (32, 4096),
            tx_desc: (32, 4096),
            reta_size: 128,
            rx_offloads: RSS_HASH,
            tx_offloads,
            rss_types: u64::MAX,
            link_events: false,
            removal_events: false,
            overhead: HEADER_AND_FCS,
        }
    }

    #[test]
    fn r5_a_device_needs_the_udp_checksum_alone_and_is_asked_for_nothing_else() {
        let config = EalConfig { memory_mb: 64, huge: HugePages::Never, ..EalConfig::default() };
        let _eal = Eal::init(config).expect("EAL starts");
        let pool = Mempool::new("plan", 255, 0, 2048, None).expect("a pool");
        let asked = PortConfig { tx_checksums: true, rss: true, rx_queues: 4, ..PortConfig::new(pool) };
        for offered in [UDP | TCP, UDP, IPV4 | UDP | TCP] {
            let (conf, report) = plan(&device(offered), &asked, 0, 2048);
            assert!(report.tx_checksums && device(offered).tx_checksums());
            assert_eq!(conf.tx_offloads, UDP, "offered {offered:#x}");
            assert_eq!(report.notes, [""; 0]);
            // Flows are spread, and no hash is written that nobody reads.
            assert!(report.rss && conf.rss_types != 0);
            assert_eq!(conf.rx_offloads, 0);
        }
        for offered in [0, IPV4, IPV4 | TCP] {
            let (conf, report) = plan(&device(offered), &asked, 0, 2048);
            assert!(!report.tx_checksums && conf.tx_offloads == 0);
            assert_eq!(report.notes, ["net_virtio does not fill in UDP checksums"]);
        }
        let (conf, _) = plan(&device(UDP), &PortConfig { tx_checksums: false, ..asked.clone() }, 0, 2048);
        assert_eq!(conf.tx_offloads, 0, "nobody asked");
        r95_a_tag_has_room_beyond_the_mtu(&asked);
    }

    fn r95_a_tag_has_room_beyond_the_mtu(asked: &PortConfig) {
        let tagged = PortConfig { tagged: true, mtu: Some(1500), ..asked.clone() };
        let needs = |info: &DevInfo, asked: &PortConfig, copies| tag_allowance(info, asked, copies);
        let tight = device(0);
        let roomy = DevInfo { overhead: HEADER_AND_FCS + 8, ..device(0) };
        assert_eq!(needs(&tight, &tagged, false), 4);
        assert_eq!(needs(&tight, &PortConfig { tagged: false, ..tagged.clone() }, false), 0);
        assert_eq!(needs(&tight, &tagged, true), 0, "what copies frames has room in its buffers");
        assert_eq!(needs(&roomy, &tagged, false), 0, "the driver counts tags itself");
        assert_eq!(plan(&tight, &tagged, 4, 2048).0.mtu, 1504);
        assert_eq!(plan(&DevInfo { max_mtu: 1500, ..tight }, &tagged, 4, 2048).0.mtu, 1500);
    }
}
