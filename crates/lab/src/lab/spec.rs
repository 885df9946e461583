//! Who a VM is: its name and its addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use godwit_wire::Mac;
use serde::{Deserialize, Serialize};

use super::{VN, VNI};

/// A virtual network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Its name in the directory.
    pub name: String,
    /// Its number.
    pub vni: u32,
}

impl Default for Network {
    /// The one that each lab has.
    fn default() -> Network {
        Network { name: VN.into(), vni: VNI }
    }
}

/// Who a VM is.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, IPv4 and IPv6.
    pub ips: Vec<IpAddr>,
    /// Its virtual network.
    pub vn: Network,
}

impl VmSpec {
    /// VM number `n`, below 100, of the lab's tenant: 203.0.113.n and 2001:db8:64::n.
    pub fn numbered(name: &str, n: u8) -> VmSpec {
        VmSpec {
            name: name.into(),
            mac: Mac([0x02, 0x67, 0x77, 0, 0, reads_as(n) as u8]),
            ips: vec![
                Ipv4Addr::new(203, 0, 113, n).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, reads_as(n)).into(),
            ],
            vn: Network::default(),
        }
    }

    /// Its address of a family, with a port.
    ///
    /// # Panics
    /// Where it has none of that family: lab VMs have both.
    pub fn address(&self, v6: bool, port: u16) -> SocketAddr {
        let ip = self.ips.iter().find(|ip| ip.is_ipv6() == v6).expect("lab VMs have both families");
        SocketAddr::new(*ip, port)
    }
}

/// The number whose hexadecimal digits are the decimal ones of `n`, so that addresses read alike.
fn reads_as(n: u8) -> u16 {
    u16::from(n / 10 % 10) * 16 + u16::from(n % 10)
}
