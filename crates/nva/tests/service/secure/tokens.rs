//! Operators with tokens.

use godwit_api::tonic::Code;
use godwit_pki::{add_token, new_token};

use super::*;

async fn started(role: Role) -> (Secure, PathBuf, String) {
    let token = new_token().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("tokens");
    add_token(&made, "ci", role, &token).unwrap();
    // The service reads the file when it starts.
    let s = Secure::start_tokens(&made).await;
    let file = s.dir.path().join("tokens");
    (s, file, token)
}

impl Secure {
    async fn start_tokens(made: &Path) -> Secure {
        let text = std::fs::read(made).unwrap();
        Secure::start_prepared(Some(&text), Config::default()).await
    }

    async fn with_token(&self, token: &str) -> OperatorClient<OperatorChannel> {
        let channel = connect_as(&self.url(), Some(&anonymous(&self.folder("nve/a")))).await.unwrap();
        OperatorClient::new(OperatorAuth::token(token).unwrap().on(channel))
    }
}

async fn asks(op: &mut OperatorClient<OperatorChannel>) -> Result<(), Status> {
    op.list_vns(v1::ListVnsRequest::default()).await.map(drop)
}

#[tokio::test]
async fn r68_a_token_is_as_good_as_a_certificate_while_it_stands_in_the_file() {
    let (s, file, token) = started(Role::Admin).await;
    let mut op = s.with_token(&token).await;
    asks(&mut op).await.unwrap();
    op.create_vn(v1::Vn { name: "red".into(), vni: 100, ..Default::default() }).await.unwrap();
    s.nve("a").await.unwrap();
    let status = asks(&mut s.with_token("wrong").await).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("not known"), "{status:?}");
    add_token(&file, "ci", Role::Admin, &new_token().unwrap()).unwrap();
    let status = until(async || asks(&mut op.clone()).await.err()).await;
    assert_eq!(status.code(), Code::Unauthenticated, "a token that was replaced ends on the same connection");
}

#[tokio::test]
async fn r68_without_certificate_and_token_nothing_is_answered() {
    let (s, _, _) = started(Role::Read).await;
    let channel = connect_as(&s.url(), Some(&anonymous(&s.folder("nve/a")))).await.unwrap();
    let mut op = OperatorClient::new(OperatorAuth::default().on(channel.clone()));
    let status = asks(&mut op).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("--token"), "{status:?}");
    let status = Nve::open_on(channel).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("nva_certificate"), "{status:?}");
}

#[tokio::test]
async fn r68_a_token_file_with_a_role_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut pki = Pki::init(&dir.path().join("pki")).unwrap();
    let nva = pki.issue(Subject::Nva { addresses: vec!["127.0.0.1".into()] }, 10).unwrap();
    let tokens = dir.path().join("tokens");
    add_token(&tokens, "ci", Role::Read, "t").unwrap();
    let text = std::fs::read_to_string(&tokens).unwrap().replace(" read ", " root ");
    std::fs::write(&tokens, text).unwrap();
    let security = Security { files: files(&nva), revoked: None, tokens: Some(tokens) };
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let store = Box::new(MemoryStore::default());
    let started =
        Service::start_secured(&listen, Some(security), Directory::new(Config::default()), store).await;
    let e = started.err().unwrap().to_string();
    assert!(e.contains("tokens: line 2: \"root\" is no role") && e.contains("NAME ROLE HASH"), "{e}");
}
