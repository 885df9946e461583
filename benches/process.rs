//! The whole process between DPDK's own ends: frames from net_pcap (infinite_rx) to net_null
//! (no-rx), encapsulated by `godwit`, beside `dpdk-testpmd` which moves the same frames without
//! touching them. The two run in turn; medians are printed.
//!
//! `cargo bench --bench process`; `GODWIT_BENCH_ROUNDS` (3), `GODWIT_BENCH_SECONDS` (3) and
//! `GODWIT_BENCH_WORKER` (core 1) change it. Needs root and the packages `dpdk` and `libdpdk-dev`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use godwit_nva_api::v1;

const TENANT: &str = "02:10:00:00:00:01";
const FRAMES: u32 = 4096;

fn main() {
    // `cargo test --benches` and `cargo bench -- --list` call this too; they want no run.
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return;
    }
    let setting =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let rounds = setting("GODWIT_BENCH_ROUNDS", 3);
    let seconds = Duration::from_secs(setting("GODWIT_BENCH_SECONDS", 3));
    let core = setting("GODWIT_BENCH_WORKER", 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("encapsulation from net_pcap (infinite_rx) to net_null (no-rx), 60-byte frames, one worker");
    println!(
        "{:>12} {:>6} {:>12} {:>12} {:>8}",
        "destinations", "outer", "godwit Mpps", "testpmd Mpps", "ratio"
    );
    for (destinations, outer) in [(1, 4), (1_000, 4), (1_000, 6), (100_000, 4)] {
        let pcap = folder.path().join(format!("{destinations}.pcap"));
        write_pcap(&pcap, destinations);
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(godwit(folder.path(), &pcap, destinations, outer, core, seconds));
            floor.push(testpmd(&pcap, core, seconds));
        }
        let (ours, floor) = (median(ours), median(floor));
        println!(
            "{destinations:>12} {:>6} {ours:>12.2} {floor:>12.2} {:>8.2}",
            format!("v{outer}"),
            ours / floor
        );
    }
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// One frame for each of up to [`FRAMES`] destinations, in no order.
fn write_pcap(path: &Path, destinations: u32) {
    use godwit_testkit::{frames, pcap};
    use godwit_wire::Mac;
    let tenant: Mac = TENANT.parse().expect("a MAC");
    let step = 2_654_435_761_u32;
    let count = FRAMES.max(destinations);
    let make = |i: u32| {
        let n = i.wrapping_mul(step) % destinations;
        let ip = std::net::Ipv4Addr::from(0x0a80_0000 + n);
        let dst = Mac::from_u64(0x0220_0000_0000 | u64::from(n));
        let from = (tenant, std::net::Ipv4Addr::new(10, 1, 0, 1).into(), 1024);
        frames::udp_frame(from, (dst, ip.into(), 5678), &[0; 18])
    };
    let all: Vec<Vec<u8>> = (0..count).map(make).collect();
    pcap::save(path, &all).expect("the capture is written");
}

/// A process that does not outlive the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(folder: &Path, pcap: &Path, destinations: u32, outer: u8, core: u64) -> PathBuf {
    let (own, locator) = if outer == 4 {
        ("ipv4 = \"198.18.0.1/16\"", "198.18.1.1")
    } else {
        ("ipv6 = \"2001:db8::1/64\"", "2001:db8::101")
    };
    let text = format!(
        "[nve]\nid = \"bench\"\nworkers = \"{core}\"\nmemory_mb = 768\nadmin_socket = \"{socket}\"\n\
         [[uplink]]\nname = \"up\"\ndevargs = \"net_null1,no-rx=1\"\n{own}\n\
         [[neighbor]]\nuplink = \"up\"\nip = \"{locator}\"\nmac = \"02:00:00:00:01:02\"\n\
         [[port]]\nname = \"in\"\ndevargs = \"net_pcap0,rx_pcap={pcap},infinite_rx=1\"\nvni = 100\n\
         mac = \"{TENANT}\"\nactivate = \"start\"\n\
         [[vm]]\nvni = 100\nmac = \"02:20:00:00:00:00\"\ncount = {destinations}\nlocator = \"{locator}\"\n",
        socket = folder.join("bench.sock").display(),
        pcap = pcap.display(),
    );
    let path = folder.join("bench.toml");
    fs::write(&path, text).expect("the configuration is written");
    path
}

/// Millions of frames a second that the switch encapsulates.
fn godwit(folder: &Path, pcap: &Path, destinations: u32, outer: u8, core: u64, span: Duration) -> f64 {
    let config = config(folder, pcap, destinations, outer, core);
    let log = fs::File::create(folder.join("godwit.log")).expect("a log");
    let child = Command::new(env!("CARGO_BIN_EXE_godwit")).arg("--config").arg(config).stderr(log).spawn();
    let _running = Running(child.expect("godwit starts"));
    let socket = folder.join("bench.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut before = 0;
        // Measure only once frames flow: the tables are full and the buffers warm.
        while before < 10_000_000 {
            assert!(Instant::now() < deadline, "the switch encapsulates nothing; see {}", folder.display());
            tokio::time::sleep(Duration::from_millis(200)).await;
            before = encapsulated(&socket).await.unwrap_or(0);
        }
        let (from, start) = (encapsulated(&socket).await.expect("counters"), Instant::now());
        tokio::time::sleep(span).await;
        let (to, took) = (encapsulated(&socket).await.expect("counters"), start.elapsed());
        (to - from) as f64 / took.as_secs_f64() / 1e6
    })
}

async fn encapsulated(socket: &Path) -> Option<u64> {
    let channel = godwit_nva_api::connect_unix(socket).await.ok()?;
    let kind = v1::admin_request::Kind::GetCounters(v1::GetCounters { all: true });
    let request = v1::AdminRequest { kind: Some(kind) };
    let answer = v1::nve_admin_client::NveAdminClient::new(channel).call(request).await.ok()?;
    match answer.into_inner().kind? {
        v1::admin_response::Kind::Counters(c) => {
            Some(c.counters.iter().filter(|c| c.name == "encapsulated").map(|c| c.value).sum())
        }
        _ => None,
    }
}

/// Millions of frames a second that testpmd moves between the same ends.
fn testpmd(pcap: &Path, core: u64, span: Duration) -> f64 {
    let main = u64::from(core == 0);
    let huge = fs::read_to_string("/proc/meminfo")
        .is_ok_and(|t| t.lines().any(|l| l.starts_with("HugePages_Free:") && !l.trim_end().ends_with(" 0")));
    let memory: &[&str] = if huge { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    let mut child = Command::new("dpdk-testpmd")
        .args(["-l", &format!("{main},{core}"), "-m", "768", "--no-pci", "--file-prefix", "bench-floor"])
        .args(memory)
        .arg(format!("--vdev=net_pcap0,rx_pcap={},infinite_rx=1", pcap.display()))
        .args(["--vdev=net_null1,no-rx=1", "--", "--forward-mode=io", "--nb-cores=1", "--auto-start"])
        .args(["--interactive", "--total-num-mbufs=200000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("dpdk-testpmd is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Start-up and filling its copy of the capture take a moment; the counters are cleared after it.
    sleep(Duration::from_secs(3));
    let _ = writeln!(stdin, "clear port stats all");
    sleep(Duration::from_millis(100));
    let _ = writeln!(stdin, "clear port stats all");
    let start = Instant::now();
    sleep(span);
    let _ = writeln!(stdin, "show port stats 1");
    let took = start.elapsed();
    sleep(Duration::from_millis(200));
    let _ = writeln!(stdin, "quit");
    drop(stdin);
    let out = child.wait_with_output().expect("dpdk-testpmd ends");
    let text = String::from_utf8_lossy(&out.stdout);
    let sent = text.rsplit("NIC statistics for port 1").find_map(|part| {
        let (_, rest) = part.split_once("TX-packets:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    sent.unwrap_or_else(|| panic!("dpdk-testpmd told no statistics:\n{text}")) as f64
        / took.as_secs_f64()
        / 1e6
}
