//! What one who sees the management network sees.

use std::sync::Mutex;

use godwit_model::Secret;
use godwit_model::message::NvaToNve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::client::{define, key, operator, serve};

/// What the keys of datagrams between NVEs are made from; without it the NVA gives none.
const SECRET: [u8; 32] = *b"a-key-of-32-bytes-for-datagrams!";

/// All bytes that go through, both ways.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// A proxy before `to`, and its address.
    async fn before(&self, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let capture = self.clone();
        tokio::spawn(async move {
            while let Ok((inner, _)) = listener.accept().await {
                let outer = TcpStream::connect(to).await.unwrap();
                let ((inner_rx, inner_tx), (outer_rx, outer_tx)) = (inner.into_split(), outer.into_split());
                tokio::spawn(capture.clone().pass(inner_rx, outer_tx));
                tokio::spawn(capture.clone().pass(outer_rx, inner_tx));
            }
        });
        addr
    }

    async fn pass(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            self.0.lock().unwrap().extend(&buffer[..length]);
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    fn has(&self, what: &[u8]) -> bool {
        self.0.lock().unwrap().windows(what.len()).any(|w| w == what)
    }
}

fn config() -> Config {
    Config { channel_secret: Some(Secret(SECRET)), ..Config::default() }
}

/// The key that the NVE is told for datagrams with one that has joined its VN.
async fn pair_key(nve: &mut Nve) -> [u8; 32] {
    let first = |m: &NvaToNve| match m {
        NvaToNve::PairKeys { keys } => keys.first().map(|k| k.secret.0),
        _ => None,
    };
    nve.until(first).await.unwrap()
}

async fn is_placed(nve: &mut Nve) {
    let record = nve.claim(1, godwit_model::Version::ZERO).await.unwrap();
    assert_eq!(record.key, key(1));
}

#[tokio::test]
async fn r68_a_capture_shows_no_record_and_no_key() {
    let capture = Capture::default();
    let s = Secure::start_prepared(None, config()).await;
    let through = format!("https://{}", capture.before(s.addr).await);
    let ann = Credentials::load(files(&s.folder("operator/ann"))).unwrap();
    let channel = connect_as(&through, Some(&ann)).await.unwrap();
    define(&mut OperatorClient::new(channel), 1).await;
    let a = Credentials::load(files(&s.folder("nve/a"))).unwrap();
    let channel = connect_as(&through, Some(&a)).await.unwrap();
    let mut nve = Nve::open_on(channel).await.unwrap().greet("a").await.unwrap();
    is_placed(&mut nve).await;
    let _peer = s.nve("peer").await.unwrap().greet("peer").await.unwrap();
    let key = pair_key(&mut nve).await;
    assert!(!capture.has(b"vm1") && !capture.has(&key) && !capture.has(b"scripted"));
}

/// The same in clear: the capture above would have shown it.
#[tokio::test]
async fn r68_a_capture_in_clear_shows_both() {
    let capture = Capture::default();
    let nva = serve(config()).await;
    let addr = nva.url.strip_prefix("http://").unwrap().parse().unwrap();
    let through = format!("http://{}", capture.before(addr).await);
    define(&mut operator(&through).await, 1).await;
    let mut nve = Nve::join(&through, "a").await.unwrap();
    is_placed(&mut nve).await;
    let _peer = Nve::join(&nva.url, "peer").await.unwrap();
    let key = pair_key(&mut nve).await;
    assert!(capture.has(b"vm1") && capture.has(&key) && capture.has(b"scripted"));
}
