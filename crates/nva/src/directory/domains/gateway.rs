//! The MAC of the gateways: one for the installation, so that a guest's neighbor entry outlives its moves.

use godwit_model::routable::may_be_gateway;
use godwit_wire::Mac;

/// A MAC that gateways cannot have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0} is no MAC for gateways: use an individual, locally administered one, as 02:00:00:00:00:fe (its first octet \
     ends in 2, 6, a or e), or one of the documentation's, 00:00:5e:00:53:00 to ff"
)]
pub struct BadGatewayMac(pub Mac);

/// A MAC that no maker gives to a card: an individual, locally administered one, or one for documentation (RFC 9542
/// section 2.1.4).
///
/// # Errors
/// Where it is none, or that of the switches' own probes.
pub fn check_gateway_mac(mac: Mac) -> Result<Mac, BadGatewayMac> {
    if may_be_gateway(mac) { Ok(mac) } else { Err(BadGatewayMac(mac)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r58_the_gateways_mac_is_no_makers_and_no_groups() {
        for good in ["02:67:77:00:00:01", "0a:00:00:00:00:01", "00:00:5e:00:53:10"] {
            assert!(check_gateway_mac(good.parse().unwrap()).is_ok(), "{good}");
        }
        let group_makers_none_probes =
            ["03:00:00:00:00:01", "00:1b:21:00:00:01", "00:00:00:00:00:00", "02:67:77:74:00:01"];
        for bad in group_makers_none_probes {
            let e = check_gateway_mac(bad.parse().unwrap()).unwrap_err();
            assert!(e.to_string().contains(bad) && e.to_string().contains("locally administered"), "{e}");
        }
    }
}
