//! Passwords: on a server of russh's, because OpenSSH's would need an account of its own for them.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{Certificate, PrivateKey, decode_secret_key};
use russh::server::{self, Auth, Response};
use russh::{MethodKind, MethodSet};
use sessiond::terminal::ssh::{HostKey, SshCredential, SshError, SshTarget, Timeouts, test};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ssh::loopback;
use super::sshd::Sshd;

/// How a server asks for a password.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Plainly,
    /// With a question of its own, and only so.
    Interactively,
    /// And then for a code as well.
    ForACode,
    /// With a password, and then for a key as well.
    ForAKey,
    /// With a password, and then in a round that has no questions: it asks somebody else.
    Elsewhere,
    /// With a question, and then with the password as it is.
    Twice,
    /// Not at all: it hangs up.
    Never,
}

struct Guard {
    asks: Asks,
    presented: Arc<Mutex<Vec<String>>>,
}

impl Guard {
    fn judge(&self, password: &str) -> Auth {
        self.presented.lock().unwrap().push(password.to_owned());
        match (password, self.asks) {
            ("right", Asks::ForAKey) => Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
                partial_success: true,
            },
            ("right", Asks::ForACode) => question("Code: "),
            ("right", Asks::Elsewhere) => further(MethodKind::KeyboardInteractive),
            ("right", Asks::Twice) if self.presented.lock().unwrap().len() == 1 => {
                further(MethodKind::Password)
            }
            ("right", _) => Auth::Accept,
            _ => Auth::reject(),
        }
    }
}

fn further(method: MethodKind) -> Auth {
    Auth::Reject { proceed_with_methods: Some(MethodSet::from(&[method][..])), partial_success: true }
}

fn question(prompt: &'static str) -> Auth {
    let prompts = Cow::Owned(vec![(Cow::Borrowed(prompt), false)]);
    Auth::Partial { name: "".into(), instructions: "".into(), prompts }
}

impl server::Handler for Guard {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        match self.asks {
            Asks::Never => Err(russh::Error::Disconnect),
            Asks::Plainly | Asks::ForAKey | Asks::Elsewhere | Asks::Twice => Ok(self.judge(password)),
            Asks::Interactively | Asks::ForACode => Ok(Auth::UnsupportedMethod),
        }
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        if self.asks == Asks::Elsewhere {
            let nothing =
                Auth::Partial { name: "".into(), instructions: "".into(), prompts: Cow::Borrowed(&[]) };
            return Ok(if response.is_none() { nothing } else { Auth::Accept });
        }
        let Some(mut response) = response else { return Ok(question("Password: ")) };
        let answer = response.next().unwrap_or_default();
        Ok(self.judge(&String::from_utf8_lossy(&answer)))
    }

    async fn auth_openssh_certificate(&mut self, _: &str, _: &Certificate) -> Result<Auth, russh::Error> {
        Ok(Auth::reject())
    }
}

/// Serves one connection after the other; returns the port, and what was presented.
async fn serve(asks: Asks, key: PrivateKey) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let presented: Arc<Mutex<Vec<String>>> = Arc::default();
    let shared = presented.clone();
    let methods = match asks {
        Asks::Interactively | Asks::ForACode | Asks::Twice => {
            [MethodKind::PublicKey, MethodKind::KeyboardInteractive].to_vec()
        }
        _ => [MethodKind::Password, MethodKind::KeyboardInteractive].to_vec(),
    };
    let config = Arc::new(server::Config {
        keys: vec![key],
        methods: MethodSet::from(methods.as_slice()),
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let guard = Guard { asks, presented: shared.clone() };
            if let Ok(running) = server::run_stream(config.clone(), stream, guard).await {
                tokio::spawn(running);
            }
        }
    });
    (port, presented)
}

async fn tried(asks: Asks, password: &str) -> (Result<HostKey, SshError>, Vec<String>) {
    tried_by(asks, password, async |port, _| port).await
}

/// The same by a way of its own: from where the server is to where it is found.
async fn tried_by(
    asks: Asks,
    password: &str,
    way: impl AsyncFnOnce(u16, Arc<Mutex<Vec<String>>>) -> u16,
) -> (Result<HostKey, SshError>, Vec<String>) {
    let sshd = Sshd::start();
    let SshCredential::Key { pem, .. } = sshd.key("host_ed25519") else { panic!("it is a key") };
    let (port, presented) = serve(asks, decode_secret_key(&pem, None).unwrap()).await;
    let port = way(port, presented.clone()).await;
    let machine = SshTarget {
        port,
        user: "ada".into(),
        credential: SshCredential::Password(password.into()),
        ..sshd.machine()
    };
    let result = test(&machine, &loopback(), Timeouts::default()).await;
    (result, std::mem::take(&mut presented.lock().unwrap()))
}

#[tokio::test]
async fn a_password_opens_the_machine() {
    for asks in [Asks::Plainly, Asks::Interactively, Asks::Elsewhere] {
        let (result, presented) = tried(asks, "right").await;
        result.unwrap();
        assert_eq!(presented, ["right"]);
    }
    let (result, presented) = tried(Asks::Twice, "right").await;
    result.unwrap();
    assert_eq!(presented, ["right", "right"], "each was asked for");
}

#[tokio::test]
async fn a_wrong_password_is_said_so_and_not_repeated() {
    for asks in [Asks::Plainly, Asks::Interactively, Asks::Elsewhere, Asks::Twice] {
        let (result, presented) = tried(asks, "wrong").await;
        let error = result.unwrap_err();
        assert_eq!(error.code(), "CREDENTIAL_REFUSED", "{error}");
        assert!(error.to_string().contains("ada was refused: the password is not accepted"), "{error}");
        assert!(!error.to_string().contains("wrong"));
        assert_eq!(presented, ["wrong"]);
    }
}

#[tokio::test]
async fn a_host_that_asks_for_more_is_told_apart() {
    for asks in [Asks::ForACode, Asks::ForAKey] {
        let (result, _) = tried(asks, "right").await;
        assert_eq!(result.unwrap_err(), SshError::MoreAsked { user: "ada".into() });
    }
    let (result, _) = tried(Asks::ForACode, "wrong").await;
    assert_eq!(result.unwrap_err().code(), "CREDENTIAL_REFUSED");
}

#[tokio::test]
async fn a_host_that_hangs_up_is_told_apart() {
    let (result, _) = tried(Asks::Never, "right").await;
    assert_eq!(result.unwrap_err(), SshError::Closed { stage: "logging in" });
}

/// Passes on what both say until a password was presented, and after that the beginning of one message of the server's: the
/// client gets an answer that it does not understand, as when it is to change its password (RFC 4252, 8).
async fn answered_strangely(port: u16, presented: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let strange = !presented.lock().unwrap().is_empty();
            let passed = if strange { count.min(8) } else { count };
            to_client.write_all(&buffer[..passed]).await.unwrap();
            if strange {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        }
        up.abort();
    });
    here
}

#[tokio::test]
async fn a_password_that_is_to_be_changed_is_said_so_at_once() {
    let began = std::time::Instant::now();
    let (result, _) = tried_by(Asks::Plainly, "right", answered_strangely).await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), "PASSWORD_EXPIRED", "{error}");
    assert!(error.to_string().contains("the password of ada has expired on the machine"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
