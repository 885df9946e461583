//! Certificates that change while the NVA runs.

use godwit_api::tonic::Code;

use super::*;

/// Whether the session stands: the NVA answers it.
async fn stands(nve: &mut Nve) -> bool {
    use godwit_model::message::{NvaToNve, NveToNva, QueryBy};
    let (vni, by) = (godwit_wire::Vni::from_low24(100), QueryBy::Mac(godwit_wire::Mac([2, 0, 0, 0, 0, 9])));
    nve.say(NveToNva::Query { seq: 1, vni, by }).await;
    nve.until(|m| matches!(m, NvaToNve::Response { .. }).then_some(())).await.is_ok()
}

#[tokio::test]
async fn r68_revoking_ends_the_session_of_one_and_of_no_other() {
    let s = Secure::start().await.with_vn().await;
    s.pki().issue(nve_subject("b"), 10).unwrap();
    let (mut a, mut b) = (s.nve("a").await.unwrap(), s.nve("b").await.unwrap());
    s.pki().revoke(&subject("nve/a")).unwrap();
    let ended = a.until(|_| None::<()>).await.unwrap_err();
    assert_ne!(ended.code(), Code::DeadlineExceeded, "the NVA ends it: {ended:?}");
    let e = s.nve("a").await.err().unwrap();
    assert!(e.message().contains("which is revoked"), "{e:?}");
    assert!(stands(&mut b).await);
}

#[tokio::test]
async fn r68_a_new_certificate_of_the_nva_is_used_without_a_restart() {
    let s = Secure::start().await.with_vn().await;
    let mut session = s.nve("a").await.unwrap();
    let elsewhere = format!("https://localhost:{}", s.addr.port());
    let credentials = Credentials::load(files(&s.folder("nve/a"))).unwrap();
    assert!(connect_as(&elsewhere, Some(&credentials)).await.is_err());
    let addresses = vec!["127.0.0.1".into(), "localhost".into()];
    s.pki().replace(Subject::Nva { addresses }, 10).unwrap();
    until(async || connect_as(&elsewhere, Some(&credentials)).await.ok()).await;
    assert!(stands(&mut session).await, "sessions of those who are good go on");
}

#[tokio::test]
async fn r68_files_that_cannot_be_used_do_not_end_what_works() {
    let s = Secure::start().await.with_vn().await;
    let mut session = s.nve("a").await.unwrap();
    let broken = s.folder("nva/key.pem");
    std::fs::write(&broken, "no key").unwrap();
    std::fs::write(s.folder("revoked.pem"), "no list").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(stands(&mut session).await);
    s.operator("operator/ann").await.unwrap().list_vns(v1::ListVnsRequest::default()).await.unwrap();
    // Once they are whole, they count.
    s.pki().renew(&subject("nva"), 10).unwrap();
    s.pki().revoke(&subject("nve/a")).unwrap();
    let ended = session.until(|_| None::<()>).await.unwrap_err();
    assert_ne!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}

#[tokio::test]
async fn r68_a_client_uses_its_new_certificate_with_its_next_connection() {
    let s = Secure::start().await.with_vn().await;
    let credentials = Credentials::load(files(&s.folder("nve/a"))).unwrap();
    s.pki().revoke(&subject("nve/a")).unwrap();
    until(async || connect_as(&s.url(), Some(&credentials)).await.err()).await;
    s.pki().issue(nve_subject("a"), 10).unwrap();
    let channel = connect_as(&s.url(), Some(&credentials)).await.unwrap();
    Nve::open_on(channel).await.unwrap().greet("a").await.unwrap();
}

#[tokio::test]
async fn r68_an_authority_that_is_taken_away_takes_its_sessions_along() {
    let s = Secure::start().await.with_vn().await;
    let mut session = s.nve("a").await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = Pki::init(&other.path().join("pki")).unwrap();
    let authority = std::fs::read(other.revoked_file().with_file_name("authority.pem")).unwrap();
    std::fs::write(s.folder("nva/authority.pem"), authority).unwrap();
    let ended = session.until(|_| None::<()>).await.unwrap_err();
    assert_ne!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}
