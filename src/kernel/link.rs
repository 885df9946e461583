//! The links of the kernel's interfaces.

use std::path::Path;

/// What the kernel says of the link of one of its interfaces; `None` where it has none of that name.
pub fn carrier(sys: &Path, interface: &str) -> Option<bool> {
    let folder = sys.join("class/net").join(interface);
    // An interface that is down has no carrier to be read.
    let up = || std::fs::read_to_string(folder.join("carrier")).is_ok_and(|text| text.trim() == "1");
    folder.exists().then(up)
}

/// The kernel's interface that a device of these arguments takes its frames from, for drivers that may call its link
/// up whatever it is.
pub fn kernel_link(driver: &str, devargs: &str) -> Option<String> {
    let named = || devargs.split(',').find_map(|arg| arg.trim().strip_prefix("iface="));
    ["net_af_packet", "net_af_xdp"].contains(&driver).then(named).flatten().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r95_the_kernel_knows_the_link_where_a_driver_does_not() {
        assert_eq!(kernel_link("net_af_xdp", "net_af_xdp0,iface=eth1,queues=2").as_deref(), Some("eth1"));
        assert_eq!(kernel_link("net_tap", "net_tap0,iface=eth1"), None);
        let sys = tempfile::tempdir().unwrap();
        let eth = sys.path().join("class/net/eth1");
        std::fs::create_dir_all(&eth).unwrap();
        let look = || carrier(sys.path(), "eth1");
        assert_eq!((carrier(sys.path(), "eth2"), look()), (None, Some(false)), "down: nothing to be read");
        std::fs::write(eth.join("carrier"), "1\n").unwrap();
        assert_eq!(look(), Some(true));
        std::fs::write(eth.join("carrier"), "0\n").unwrap();
        assert_eq!(look(), Some(false));
    }
}
