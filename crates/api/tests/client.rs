//! Connecting, and what is said when that fails.

use godwit_api::tonic::transport::Server;
use godwit_api::tonic::{self, Request, Response, Status};
use godwit_api::v1::nve_admin_client::NveAdminClient;
use godwit_api::v1::nve_admin_server::{NveAdmin, NveAdminServer};
use godwit_api::{ConnectError, client, connect, connect_unix, v1};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

struct Switch;

#[tonic::async_trait]
impl NveAdmin for Switch {
    async fn call(&self, _: Request<v1::AdminRequest>) -> Result<Response<v1::AdminResponse>, Status> {
        let done = v1::Done { text: "here".into() };
        Ok(Response::new(v1::AdminResponse { kind: Some(v1::admin_response::Kind::Done(done)), next: 0 }))
    }
}

#[test]
fn addresses_are_checked_before_anything_is_sent() {
    for good in [
        "http://10.0.0.1:6640",
        "https://10.0.0.1:6640",
        "10.0.0.1:6640",
        "[2001:db8::1]:6640",
        "http://nva.example:1",
    ] {
        assert!(client::endpoint(good).is_ok(), "{good}");
    }
    for bad in ["", "http://", "10.0.0.1", "ftp://a:1", "https://", "http://:6640", "a b:1"] {
        let e = client::endpoint(bad).unwrap_err();
        assert!(matches!(e, ConnectError::BadUrl { .. }), "{bad}");
        assert!(e.to_string().contains("https://HOST:PORT"), "{e}");
    }
}

#[tokio::test]
async fn an_nva_that_is_not_there_is_named() {
    // Port 1 on the loopback address: nobody listens, and no other test does so meanwhile.
    let e = connect("http://127.0.0.1:1").await.unwrap_err();
    let text = e.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_switch_answers_on_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let e = connect_unix(&path).await.unwrap_err();
    assert!(e.to_string().contains("is godwit running"), "{e}");

    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let server = Server::builder().add_service(NveAdminServer::new(Switch));
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    let mut switch = NveAdminClient::new(connect_unix(&path).await.unwrap());
    let answer = switch.call(v1::AdminRequest::default()).await.unwrap().into_inner();
    assert!(matches!(answer.kind, Some(v1::admin_response::Kind::Done(_))));

    server.abort();
    let _ = server.await;
    let e = connect_unix(&path).await.unwrap_err();
    assert!(e.to_string().contains("no godwit listens"), "{e}");
}
