//! What a peer sends and the protocol does not allow is refused by the field's name.

use godwit_api::{SessionUp, v1};
use godwit_model::{MAX_BOUND, MAX_MACS, MAX_PREFIXES, VmRecord};

fn refusal(m: v1::nve_message::Kind) -> String {
    SessionUp::try_from(v1::NveMessage { kind: Some(m) }).unwrap_err().to_string()
}

#[test]
fn a_refusal_names_the_field_and_what_is_wrong() {
    use v1::nve_message::Kind;
    let key = |vni, mac| Some(v1::VmKey { vni, mac });
    let version = Some(v1::Version { epoch: 1, seq: 1 });
    let unset = SessionUp::try_from(v1::NveMessage { kind: None }).unwrap_err();
    assert_eq!(unset.to_string(), "kind: is not set");
    assert_eq!(
        refusal(Kind::Subscribe(v1::Subscribe { vni: 1 << 24, pull: false, lingers: false })),
        "subscribe.vni: 16777216 does not fit in 24 bits"
    );
    assert_eq!(
        refusal(Kind::Withdraw(v1::Withdraw { key: key(1, 1 << 48), version })),
        "withdraw.key.mac: 0x1000000000000 does not fit in 48 bits"
    );
    assert_eq!(
        refusal(Kind::Withdraw(v1::Withdraw { key: key(1, 1), version: None })),
        "withdraw.version: is not set"
    );
    let claim = v1::Claim { key: key(1, 1), base: version, port: "p1".into(), ..Default::default() };
    assert_eq!(refusal(Kind::Claim(claim.clone())), "claim.cause: enumerator 0 is not known");
    let short = v1::Claim { cause: 1, ipv4: vec![vec![1, 2, 3]], ..claim };
    assert_eq!(refusal(Kind::Claim(short)), "claim.ipv4: 3 bytes where 4 are an address");
    let by = Some(v1::query::By::Ip(vec![0; 5]));
    assert_eq!(
        refusal(Kind::Query(v1::Query { seq: 1, vni: 1, by })),
        "query.ip: 5 bytes are no IP address, send 4 or 16"
    );
    let mut hello = v1::Hello { protocol: 2, nve: "a".into(), ..Default::default() };
    assert_eq!(refusal(Kind::Hello(hello.clone())), "hello.locators: is not set");
    hello.locators = Some(v1::Locators::default());
    assert_eq!(
        refusal(Kind::Hello(hello.clone())),
        "hello.locators.v4: neither an IPv4 nor an IPv6 locator is set"
    );
    hello.nve = "no spaces".into();
    assert!(refusal(Kind::Hello(hello.clone())).starts_with("hello.nve: NVE name \"no spaces\""));
    hello.protocol = 1;
    assert!(refusal(Kind::Hello(hello)).starts_with("hello.protocol: protocol 1 is not spoken"));
}

#[test]
fn r92_more_than_the_bounds_is_refused_by_name() {
    let key = Some(v1::VmKey { vni: 1, mac: 1 });
    let version = Some(v1::Version { epoch: 1, seq: 1 });
    let good = v1::VmRecord { name: "v".into(), key, state: 1, version, ..Default::default() };
    assert!(VmRecord::try_from(good.clone()).is_ok());
    let refusal = |r: v1::VmRecord| VmRecord::try_from(r).unwrap_err().to_string();
    let allowed = |a: v1::Allowed| refusal(v1::VmRecord { allowed: Some(a), ..good.clone() });
    let prefixes = vec!["10.0.0.0/24".to_owned(); MAX_PREFIXES + 1];
    assert_eq!(
        allowed(v1::Allowed { routes: prefixes.clone(), ..Default::default() }),
        "allowed.routes: 33 is more than 32"
    );
    assert_eq!(
        allowed(v1::Allowed { virtual_ips: prefixes, ..Default::default() }),
        "allowed.virtual_ips: 33 is more than 32"
    );
    assert_eq!(
        allowed(v1::Allowed { nested: vec![2; MAX_MACS + 1], ..Default::default() }),
        "allowed.nested: 65 is more than 64"
    );
    let learning = Some(v1::Learning { v4: Some(65), v6: None });
    assert_eq!(
        allowed(v1::Allowed { learning, ..Default::default() }),
        "allowed.learning.v4: 65 is more than 64"
    );
    assert_eq!(
        allowed(v1::Allowed { routes: vec!["10.0.0.0/33".into()], ..Default::default() }),
        "allowed.routes: \"10.0.0.0/33\" is no prefix: write ADDRESS or ADDRESS/LENGTH"
    );
    let one = v1::BoundIp { ip: vec![10, 0, 0, 1], mac: 1, is_virtual: false };
    let many = v1::VmRecord { bound_ips: vec![one; MAX_BOUND + 1], ..good };
    assert_eq!(refusal(many), "bound_ips: 257 is more than 256");
}
