//! Every command against canned answers: its table, its JSON, what it sent, how it ended.
//!
//! The expected transcripts are in `snapshots/`; `INSTA_UPDATE=always` rewrites them.

use crate::fixture::Fixture;

#[test]
fn nva() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&["nva status", "nva status --json"]));
}

#[test]
fn nva_counters() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "nva counters",
        "nva counters --all",
        "nva counters --all --json",
        "--socket SOCKET nva counters",
    ]));
}

#[test]
fn nve() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "nve list",
        "nve list --json",
        "nve show nve-a",
        "nve show nve-a --json",
        "nve show rack7-vtep",
        "--socket SOCKET nve show",
        "nve define r8 --ipv4 198.18.0.8 --ipv6 2001:db8::8",
        "nve delete rack7-vtep --json",
        "nve delete rack7-vtp",
    ]));
}

#[test]
fn r68_what_an_nve_may_and_who_changed_it() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "nve allow nve-a --vn blue,green",
        "nve allow nve-a --vn blue --only --json",
        "nve allow nve-a --vn all",
        "nve allow nve-a --vn bleu",
        "nve allow nve-a",
        "nve deny nve-a --vn blue",
        "nve deny nve-a --vn all --force",
        "audit",
        "audit --who alice --what vm --since 2023-11-14T22:13:20Z --follow --json",
        "audit --since yesterday",
    ]));
}

#[test]
fn r85_nve_drain() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "nve drain nve-a --to nve-b --parallel 8",
        "nve drain nve-a --json",
        "nve drain nve-a --to nve-c",
        "nve drain nve-aa",
        "nve drain nve-a --parallel 65",
        "nve drain nve-a --stop",
        "nve drain nve-a --show",
        "nve drain nve-a --wait",
        "nve undrain nve-a",
        "nve show nve-c",
    ]));
}

#[test]
fn vn() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "vn list",
        "vn list --json",
        "vn create red --vni 5003 --mtu 1450 --transparent-vlan",
        "vn create red --vni 5003 --json",
        "vn create red --vni 5001",
        "vn create red --vni 5004 --silent flood",
        "vn set blue --silent query --json",
        "vn set bleu --silent flood",
        "vn set blue --unplanned accept",
        "vn set blue --rarp on --json",
        "vn create red --vni 5004 --addresses learned --json",
        "vn set blue --addresses recorded --addresses-v6 default --json",
        "vn set blue --addresses learned=65",
        "vn set blue",
        "vn delete green",
        "vn delete blue",
        "vn delete gren",
    ]));
}

#[test]
fn r58_vn_subnets() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "vn show web",
        "vn show db --json",
        "vn show wbe",
        "vn create app --vni 5007 --domain shop --routed-only --subnet \
         10.7.0.0/24,gateway=10.7.0.1,dhcp=12h,dns=10.7.0.2 --subnet \
         2001:db8:7::/64,gateway=2001:db8:7::1,ra=managed+other,\
         lifetime=1h --json",
        "vn create app --vni 5007 --domain shpo",
        "vn create app --vni 5007 --subnet 10.7.0.0/24,gateway=10.7.0.1",
        "vn create app --vni 5007 --domain shop --subnet 10.7.0.0/24",
        "vn create app --vni 5007 --domain shop --subnet 10.7.0.0/24,gateway=10.7.0.1,mtu=1400",
        "vn create app --vni 5007 --multicast snoop --underlay-group 239.1.1.1,ff08::1:1",
        "vn create app --vni 5007 --underlay-group 10.1.1.1",
        "vn set web --multicast off --underlay-group none",
        "vn set blue --domain shop --routed-only",
        "vn set blue --domain shpo",
        "vn set web --routed-only=false --json",
        "vn set web --no-domain",
        "vn set web --no-domain --domain shop",
        "vn subnet add web 10.3.0.0/24 --gateway 10.3.0.1 --dhcp --dns 10.3.0.2,10.3.0.3",
        "vn subnet add web 2001:db8:3::/64 --gateway 2001:db8:3::1 --ra --lifetime 0s --dhcp=12h",
        "vn subnet add wbe 10.3.0.0/24 --gateway 10.3.0.1",
        "vn subnet add web 10.2.0.0/16 --gateway 10.2.0.1",
        "vn subnet add web 10.3.0.0/24",
        "vn subnet remove web 10.3.0.0/24 --json",
        "vn subnet remove web 10.1.0.0/24",
    ]));
}

#[test]
fn r58_domain() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "domain list",
        "domain list --json",
        "domain show shop",
        "domain show shop --json",
        "domain show shpo",
        "domain create lab",
        "domain delete empty --json",
        "domain delete shop",
        "domain delete emtpy",
        "domain route add shop 0.0.0.0/0 --via web1",
        "domain route add shop 10.244.1.0/24 --via wbe1",
        "domain route add shop 10.244.1.1/24 --via web1",
        "domain route add shop 10.244.1.0/24",
        "domain route remove shop 10.244.1.0/24 --json",
        "domain route remove shop 10.244.9.0/24",
    ]));
}

#[test]
fn vm() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "vm list",
        "vm list --vn green",
        "vm list --json",
        "vm show web1",
        "vm show web2 --json",
        "vm define db --vn blue --mac 02:00:00:00:00:09 --ipv4 10.0.0.9,10.0.0.10 --ipv6 2001:db8::9 --router",
        "vm define db --vn bleu --mac 02:00:00:00:00:09",
        "vm define db --vn blue --mac 02:00:00:00:00:09 --pin rack7-vtep --json",
        "vm clear web1",
        "vm clear wbe1",
        "vm departed web1",
        "vm departed web1 --nve nve-b --json",
        "vm departed web1 --nve nve-a",
        "vm departed wbe1",
        "vm delete spare",
        "vm delete sparre",
    ]));
}

#[test]
fn r92_r93_r94_vm_addresses() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "vm show web2",
        "vm define lb --vn blue --mac 02:00:00:00:00:09 --virtual 10.0.0.200,10.0.1.0/28 --virtual-mac \
         00:00:5e:00:01:33",
        "vm define node --vn blue --mac 02:00:00:00:00:09 --route 10.244.1.0/24 --nested 02:00:00:00:01:01 --json",
        "vm define pc --vn blue --mac 02:00:00:00:00:09 --addresses learned --addresses-v4 recorded",
        "vm set web2 --virtual 10.0.0.201 --no-virtual 10.0.0.200 --virtual-mac 00:00:5e:00:01:34",
        "vm set web2 --nested 02:00:00:00:01:02 --no-nested 02:00:00:00:01:01 --no-virtual-mac 00:00:5e:00:01:33",
        "vm set web2 --route 2001:db8:1::/64 --no-route 10.244.1.0/24 --router",
        "vm set web2 --ipv4 10.0.0.3,10.0.0.4 --no-ipv4 10.0.0.2 --ipv6 2001:db8::3 --no-ipv6 2001:db8::2",
        "vm set web2 --addresses learned=4 --addresses-v6 default --no-router --no-policy",
        "vm set web2 --policy web --json",
        "vm set web2 --nested 02:00:00:00:00:01",
        "vm set wbe2 --router",
        "vm set web2",
        "vm set web2 --router --no-router",
        "vm set web2 --route 10.244.1.7/24",
        "vm set web2 --addresses many",
        "vm set web2 --nested 01:00:5e:00:00:01",
    ]));
}

#[test]
fn policy() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "policy list",
        "policy list --json",
        "policy show web",
        "policy show slow --json",
        "policy show wbe",
        "policy define no-mail",
        "policy define slow --default deny --rate 55 --json",
        "policy define slow --rate 0",
        "policy define slow --burst 5",
        "policy remove slow",
        "policy remove web",
        "vm define db --vn blue --mac 02:00:00:00:00:09 --policy web --json",
    ]));
}

#[test]
fn r23_policy_dscp() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "policy define voice --dscp EF",
        "policy define video --dscp af41 --json",
        "policy define other --dscp 63",
        "policy define plain --dscp 0",
        "policy show slow",
        "policy define voice --dscp 64",
        "policy define voice --dscp AF44",
    ]));
}

/// Moves are ordered, aborted and listed (R49, R75).
#[test]
fn vm_move() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "vm move web1 --to nve-b",
        "vm move web1 --to nve-b --mode hot --id upgrade-1 --wait",
        "vm move web1 --to nve-b --wait --json",
        "vm move web2 --to nve-b --wait",
        "vm move web1 --to nve-bb",
        "vm move wbe1 --to nve-b",
    ]));
}

/// Warm and cold moves are ordered, accepted and reported, and mirrors recorded (R50, R51, R56).
#[test]
fn r50_r51_r56_moves_that_interrupt() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "vm move web1 --to nve-b --mode cold --accept-interruption",
        "vm move web1 --to nve-b --mode tepid",
        "vm mirror web1 --to nve-b --interval 1m",
        "vm mirror web1 --off --json",
        "vm mirror web1",
        "vm mirrored wbe1 --at 2026-01-31T12:00:00Z",
        "vm mirrored web1 --at yesterday",
        "move report m-3 packaged",
        "move report m-3 paused",
        "vn create red --vni 5003 --modes hot,cold",
        "vn set blue --modes cold",
        "vn set blue --modes all --json",
    ]));
}

#[test]
fn moves() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "move list",
        "move list --unfinished --json",
        "move show m-1",
        "move show m-1 --json",
        "move show m-2",
        "move show m-3",
        "move show m-4",
        "move abort m-2",
        "move abort m-1",
        "move watch m-1",
        "move watch m-3 --json",
        "move show x-17",
    ]));
}

#[test]
fn port() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "port list --nve nve-a",
        "--socket SOCKET port list --json",
        "port show vm1 --nve nve-a",
        "port show vm2 --nve nve-a --json",
        "port show vm9 --nve nve-a",
        "port add vm3 --devargs net_tap3,iface=tap3 --vni 5001 --mac 02:00:00:00:00:03 --nve nve-a",
        "port pause vm1 --socket SOCKET",
        "port pause vm1 --move m-2 --nve nve-a",
        "port activate vm1 --nve nve-b --json",
        "port state vm1 suspending --nve nve-a",
        "port state vm2 running --nve nve-a",
        "port state vm1 asleep --nve nve-a",
        "port move vm1 --worker 0 --nve nve-a",
        "port remove vm2 --nve nve-a",
        "port remove uplink0 --nve nve-a",
        "port list --nve nve-c",
        "port list --nve nve-aa",
        "port list",
    ]));
}

#[test]
fn counters() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "counters",
        "counters --nve nve-b --drops --all",
        "counters --socket SOCKET --port vm1 --json",
        "counters --nve nve-a --port vm2 --drops",
        "counters --nve nve-a --port vm1 --watch 0.01 --rounds 2",
    ]));
}

#[test]
fn perf() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "perf --nve nve-a",
        "perf --nve nve-a --reset",
        "perf --socket SOCKET --json",
        "perf --nve nve-c",
    ]));
}

#[test]
fn placement() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "placement show --nve nve-a",
        "placement show --socket SOCKET --window 100 --json",
        "placement set uplink0:1 1 --nve nve-a",
        "placement set uplink0:1 7 --nve nve-a",
        "placement set uplink0 1 --nve nve-a",
        "placement rebalance --dry-run --nve nve-a",
        "placement rebalance --nve nve-a",
        "placement rebalance --dry-run --nve nve-a --json",
    ]));
}

#[test]
fn r95_underlay() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&["underlay --nve nve-a", "underlay --socket SOCKET --json",]));
}

#[test]
fn r58_routes_of_an_nve() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "routes --nve nve-a",
        "routes --socket SOCKET --domain shop --hosts",
        "routes --nve nve-a --domain shop --json",
        "routes --nve nve-a --domain shpo",
        "routes --socket SOCKET --domain empty",
    ]));
}

#[test]
fn entries() {
    let f = Fixture::start();
    insta::assert_snapshot!(f.transcript(&[
        "entries --nve nve-a",
        "entries --nve nve-a --vn blue --json",
        "entries --socket SOCKET --vn 5002",
        "entries --socket SOCKET --vn blue",
        "entries --nve nve-a --vn 77",
        "entries --nve nve-a --vn greeen",
    ]));
}

#[test]
fn trace() {
    let f = Fixture::start();
    let to = "trace --nve nve-b --port vm1";
    let commands = [
        format!("{to} --dst 02:00:00:00:00:02"),
        format!(
            "{to} --dst 02:00:00:00:00:02 --ipv4-src 10.0.0.1 --ipv4-dst 10.0.0.2 --proto tcp --dport 443"
        ),
        format!("{to} --dst 02:00:00:00:00:02 --ipv6-src 2001:db8::1 --ipv6-dst 2001:db8::2 --json"),
        format!("{to} --arp 10.0.0.2 --ipv4-src 10.0.0.1"),
        format!("{to} --nd 2001:db8::2 --ipv6-src 2001:db8::1 --src 02:00:00:00:00:77"),
        format!("{to} --rarp --vlan 7"),
        "trace --socket SOCKET --port uplink0 --hex ffffffffffff0200000000010806".into(),
        "trace --nve nve-b --port uplink0 --arp 10.0.0.2".into(),
        "trace --nve nve-b --port vm11 --arp 10.0.0.2".into(),
        format!("{to} --ipv4-src 10.0.0.1 --ipv4-dst 10.0.0.2"),
        format!("{to} --ipv4-src 10.0.0.1"),
        format!("{to} --hex ff"),
    ];
    insta::assert_snapshot!(f.transcript(&commands.each_ref().map(String::as_str)));
}
