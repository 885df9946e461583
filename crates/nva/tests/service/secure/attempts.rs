//! Attempts to connect that are refused, each with its reason on the client's side.

use std::net::SocketAddr;

use godwit_api::tls::rustls::pki_types::pem::PemObject as _;
use godwit_api::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use godwit_api::tls::rustls::{ClientConfig, version};
use godwit_api::tls::tokio_rustls::TlsConnector;
use godwit_api::tls::{provider, roots};
use godwit_api::tonic::Code;
use godwit_api::{connect, connect_as};
use godwit_nva::Config;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::client::{operator, serve};

/// What the NVA says to one who shows this certificate, without the client's own checks.
async fn shown(addr: SocketAddr, authority: &Path, certificate: &[u8], key: &[u8]) -> String {
    let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
    let config = config.unwrap().with_root_certificates(roots(authority).unwrap());
    let config = config.with_client_auth_cert(chain, key).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::from(addr.ip());
    match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
        Err(e) => e.to_string(),
        Ok(mut tls) => match tls.read_u8().await {
            Ok(_) => "let in".into(),
            Err(e) => e.to_string(),
        },
    }
}

/// The same of the files in a folder.
async fn shown_from(s: &Secure, folder: &Path) -> String {
    let read = |name| std::fs::read(folder.join(name)).unwrap();
    let authority = s.folder("authority.pem");
    shown(s.addr, &authority, &read("certificate.pem"), &read("key.pem")).await
}

/// A certificate of the authority that our own command would not issue.
fn odd(s: &Secure, change: impl Fn(&mut CertificateParams)) -> (Vec<u8>, Vec<u8>) {
    let read = |name| std::fs::read_to_string(s.folder(name)).unwrap();
    let key = KeyPair::from_pem(&read("authority-key.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("authority.pem"), key).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let own = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap();
    (certificate.pem().into_bytes(), own.serialize_pem().into_bytes())
}

async fn refused(s: &Secure, folder: &Path) -> String {
    s.connect(folder).await.expect_err("it is refused").to_string()
}

#[tokio::test]
async fn r68_certificates_of_the_authority_are_let_in() {
    let s = Secure::start().await.with_vn().await;
    s.nve("a").await.unwrap();
    assert_eq!(shown_from(&s, &s.folder("nve/a")).await, "let in");
}

#[tokio::test]
async fn r68_another_authority_is_refused_by_both_sides() {
    let (s, other) = (Secure::start().await, Secure::start().await);
    let mixed = s.dir.path().join("mixed");
    std::fs::create_dir(&mixed).unwrap();
    for (from, name) in [(&other, "certificate.pem"), (&other, "key.pem"), (&s, "authority.pem")] {
        std::fs::copy(from.folder("nve/a").join(name), mixed.join(name)).unwrap();
    }
    let e = refused(&s, &mixed).await;
    assert!(e.contains("not from an authority that the NVA trusts") && e.contains("--authority"), "{e}");
    let e = refused(&s, &other.folder("nve/a")).await;
    assert!(e.contains("its certificate is not from our authority"), "{e}");
}

#[tokio::test]
async fn r68_one_without_a_certificate_is_refused() {
    let s = Secure::start().await;
    let e = connect_as(&s.url(), Some(&anonymous(&s.folder("nve/a")))).await.unwrap_err().to_string();
    assert!(e.contains("demands a client certificate") && e.contains("give certificate and key"), "{e}");
    let e = connect(&s.url()).await.unwrap_err().to_string();
    assert!(e.contains("https needs the authority"), "{e}");
}

#[tokio::test]
async fn r68_clear_and_tls_do_not_meet() {
    let s = Secure::start().await;
    let mut op = operator(&format!("http://{}", s.addr)).await;
    let status = op.get_status(v1::NvaStatusRequest {}).await.unwrap_err();
    assert!(matches!(status.code(), Code::Unknown | Code::Unavailable), "nothing is answered: {status:?}");

    let clear = serve(Config::default()).await;
    let url = clear.url.replace("http://", "https://");
    let credentials = Credentials::load(files(&s.folder("nve/a"))).unwrap();
    let e = connect_as(&url, Some(&credentials)).await.unwrap_err().to_string();
    assert!(e.contains("does not speak TLS there") && e.contains("http://"), "{e}");
}

#[tokio::test]
async fn r68_an_older_tls_is_refused() {
    let s = Secure::start().await;
    let mut tcp = TcpStream::connect(s.addr).await.unwrap();
    // A ClientHello of TLS 1.2: version, random, no session, one suite, no compression, groups and signatures.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 20]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 23, 0, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    tcp.write_all(&record).await.unwrap();
    let mut answer = [0; 7];
    tcp.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70), "a fatal alert: protocol_version");
}

#[tokio::test]
async fn r68_an_expired_certificate_is_refused() {
    let s = Secure::start().await;
    let folder = s.pki().issue(nve_subject("late"), 0).unwrap();
    let answer = until(async || Some(shown_from(&s, &folder).await).filter(|text| text != "let in")).await;
    assert!(answer.contains("CertificateExpired"), "{answer}");
    let e = Credentials::load(files(&folder)).unwrap_err().to_string();
    assert!(e.contains("expired on"), "{e}");
}

#[tokio::test]
async fn r68_a_certificate_without_a_name_is_refused() {
    let s = Secure::start().await;
    let cases: [(&str, &[&str]); 4] = [
        ("no URI", &[]),
        ("another's URI", &["https://example.org/nve/a"]),
        ("two names", &["godwit://nve/a", "godwit://nve/b"]),
        ("no role", &["godwit://operator/ann?role=root"]),
    ];
    for (case, uris) in cases {
        let (certificate, key) = odd(&s, |p| {
            let uri = |u: &&str| SanType::URI((*u).try_into().unwrap());
            p.subject_alt_names = uris.iter().map(uri).collect();
        });
        let answer = shown(s.addr, &s.folder("authority.pem"), &certificate, &key).await;
        assert!(answer.contains("CertificateUnknown"), "{case}: {answer}");
    }
}

#[tokio::test]
async fn r68_a_servers_certificate_is_no_clients_and_the_reverse() {
    let s = Secure::start().await;
    let e = refused(&s, &s.folder("nva")).await;
    assert!(e.contains("not made for clients"), "{e}");

    // A switch that poses as the NVA: its certificate has the address, but is none of a server.
    let (certificate, key) = odd(&s, |p| {
        p.subject_alt_names = vec![
            SanType::URI("godwit://nve/a".try_into().unwrap()),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ];
    });
    let folder = s.folder("posing");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("certificate.pem"), certificate).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    std::fs::set_permissions(folder.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
    std::fs::copy(s.folder("authority.pem"), folder.join("authority.pem")).unwrap();
    let security = Security { files: files(&folder), revoked: None, tokens: None };
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let store = Box::new(MemoryStore::default());
    let posing = Service::start_secured(&listen, Some(security), Directory::new(Config::default()), store);
    let posing = posing.await.unwrap();
    let url = format!("https://{}", posing.addrs()[0]);
    let credentials = Credentials::load(files(&s.folder("operator/ann"))).unwrap();
    let e = connect_as(&url, Some(&credentials)).await.unwrap_err().to_string();
    assert!(e.contains("is not made for servers"), "{e}");
}

#[tokio::test]
async fn r68_an_address_that_the_certificate_does_not_have_is_named() {
    let s = Secure::start().await;
    let url = format!("https://localhost:{}", s.addr.port());
    let credentials = Credentials::load(files(&s.folder("nve/a"))).unwrap();
    let e = connect_as(&url, Some(&credentials)).await.unwrap_err().to_string();
    assert!(e.contains("does not name localhost") && e.contains("--address"), "{e}");
}

#[tokio::test]
async fn r68_switches_give_no_orders_and_operators_have_no_sessions() {
    let s = Secure::start().await.with_vn().await;
    let status =
        s.operator("nve/a").await.unwrap().list_vns(v1::ListVnsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("NVE a is no operator"), "{status:?}");
    let channel = s.connect(&s.folder("operator/ann")).await.unwrap();
    let status = Nve::open_on(channel).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("operator ann (admin) is no switch"), "{status:?}");
}
