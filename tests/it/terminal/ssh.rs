//! Shells on a real OpenSSH server.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sessiond::outbound::{Allowances, Purpose};
use sessiond::terminal::frame::Size;
use sessiond::terminal::ssh::{
    Pin, Shell, ShellEnd, ShellEvent, SshCredential, SshError, SshTarget, Timeouts, ask_host_key, connect,
    private_key, test,
};
use tempfile::TempDir;

use super::sshd::{Sshd, user};
use crate::support::resident;

/// This machine and no other.
pub fn loopback() -> Allowances {
    Allowances::of(Purpose::Machine, &crate::support::config(&TempDir::new().unwrap(), &[]), true)
}

pub async fn open(machine: &SshTarget) -> Result<Shell, SshError> {
    connect(machine, &loopback(), Size::USUAL, Timeouts::default()).await
}

/// A shell, and what it has printed.
struct ShellClient {
    shell: Shell,
    printed: Vec<u8>,
}

impl ShellClient {
    async fn open(machine: &SshTarget) -> Self {
        let mut client = Self { shell: open(machine).await.unwrap(), printed: Vec::new() };
        client.until("$ ").await;
        client
    }

    async fn types(&mut self, text: &str) {
        self.printed.clear();
        assert!(self.shell.input(Bytes::copy_from_slice(text.as_bytes())).await);
    }

    fn text(&self) -> String {
        super::pty::without_escapes(&String::from_utf8_lossy(&self.printed))
    }

    async fn until(&mut self, end: &str) {
        self.until_it(end, |text| text.ends_with(end)).await;
    }

    async fn until_it(&mut self, end: &str, is_there: impl Fn(&str) -> bool) {
        let look = async {
            while !is_there(&self.text()) {
                match self.shell.next().await {
                    ShellEvent::Output(bytes) => self.printed.extend_from_slice(&bytes),
                    ShellEvent::End(ended) => panic!("{ended:?} before {end:?}: {:?}", self.text()),
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), look).await.is_err() {
            panic!("waited in vain for {end:?}: {:?}", self.text());
        }
    }

    /// What a command prints.
    async fn run(&mut self, command: &str) -> String {
        self.types(&format!("{command}\r")).await;
        // A prompt that is drawn again for a new size is not the one.
        self.until_it("$ ", |text| text.contains('\n') && text.ends_with("$ ")).await;
        let text = self.text();
        let (_, printed) = text.split_once('\n').unwrap();
        printed.trim_end_matches("$ ").trim_end().to_owned()
    }

    async fn ends(&mut self) -> ShellEnd {
        let end = async {
            loop {
                if let ShellEvent::End(end) = self.shell.next().await {
                    return end;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), end).await.expect("it goes on")
    }
}

#[tokio::test]
async fn a_shell_is_as_with_ssh() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    assert_eq!(client.run("echo $((6 * 7)) grüße").await, "42 grüße");
    assert_eq!(client.run("stty size").await, "24 80");
    assert!(client.shell.resize(Size { cols: 132, rows: 50 }).await);
    assert_eq!(client.run("stty size").await, "50 132");
    assert_eq!(client.run("echo $TERM; tty | cut -c1-8").await, "xterm-256color\n/dev/pts");
    // Once it says so, it has the terminal.
    client.types("sh -c 'echo $0; exec sleep 60' begun\r").await;
    client.until("\nbegun\n").await;
    client.types("\x03").await;
    client.until("$ ").await;
    assert_eq!(client.run("echo $?").await, "130");
    client.types("exit 7\r").await;
    assert_eq!(client.ends().await, ShellEnd::Exited(7));
    assert!(!client.shell.input(Bytes::from_static(b"more\r")).await, "nobody is there any more");
}

#[tokio::test]
async fn bytes_come_through_as_they_are() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    client.types("stty raw -echo; printf '>'; dd bs=1 count=256 status=none; printf '<'; stty sane\r").await;
    client.until(">").await;
    let all: Vec<u8> = (0..=255).collect();
    client.printed.clear();
    assert!(client.shell.input(all.clone().into()).await);
    while !client.printed.ends_with(b"$ ") {
        let ShellEvent::Output(bytes) = client.shell.next().await else { panic!("it ended") };
        client.printed.extend_from_slice(&bytes);
    }
    assert!(client.printed.starts_with(&[&all[..], b"<"].concat()), "{:?}", client.printed);
}

#[tokio::test]
async fn how_a_shell_ends_is_told() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    client.types("kill -9 $$\r").await;
    assert_eq!(client.ends().await, ShellEnd::Killed("KILL".into()));
    // Closed from here: what runs there is hung up on.
    let mut client = ShellClient::open(&sshd.machine()).await;
    let pid: u32 = client.run("echo $$").await.parse().unwrap();
    client.shell.close().await;
    assert!(matches!(client.ends().await, ShellEnd::Lost(_)));
    gone(pid).await;
    // Dropped, as by a panic.
    let mut client = ShellClient::open(&sshd.machine()).await;
    let pid: u32 = client.run("echo $$").await.parse().unwrap();
    drop(client);
    gone(pid).await;
}

/// Waits until there is no such process.
async fn gone(pid: u32) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < give_up, "the shell lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_is_noticed_at_once() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    sshd.signal_children("-KILL");
    let begun = Instant::now();
    assert!(matches!(client.ends().await, ShellEnd::Lost(_)));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_machine_that_falls_silent_is_given_up() {
    let sshd = Sshd::start();
    let timeouts = Timeouts { ask: Duration::from_millis(300), ..Timeouts::default() };
    let shell = connect(&sshd.machine(), &loopback(), Size::USUAL, timeouts).await.unwrap();
    let mut client = ShellClient { shell, printed: Vec::new() };
    client.until("$ ").await;
    // One that only has nothing to say answers.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.run("echo here").await, "here");
    sshd.signal_children("-STOP");
    let ShellEnd::Lost(why) = client.ends().await else { panic!("it is not lost") };
    assert!(why.contains("not answered"), "{why}");
}

#[tokio::test]
async fn one_that_nobody_reads_is_not_taken_for_silent() {
    let sshd = Sshd::start();
    let timeouts = Timeouts { ask: Duration::from_millis(200), ..Timeouts::default() };
    let shell = connect(&sshd.machine(), &loopback(), Size::USUAL, timeouts).await.unwrap();
    let mut client = ShellClient { shell, printed: Vec::new() };
    client.until("$ ").await;
    client.types("yes | head -c 3000000; echo; echo end\r").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.until("\nend\n$ ").await;
    assert!(client.printed.len() >= 3_000_000);
}

#[tokio::test]
async fn nothing_is_read_that_nobody_takes_and_keys_still_get_through() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    client.types("yes 'a line that is printed over and over again'\r").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // All the while nobody has read. The key is the only thing that ends it.
    client.types("\x03").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.until("$ ").await;
    // What was under way: the window, buffers of the systems between, and a pipe.
    assert!(client.printed.len() < 8 << 20, "{} bytes were printed", client.printed.len());
    assert_eq!(client.run("echo still here").await, "still here");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_a_slow_reader_in_little_memory() {
    const SIZE: usize = 100 << 20;
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    let pattern: String = (0..64).map(|n| char::from(b'0' + n)).collect();
    client
        .types(&format!(
            "stty -opost; yes '{}' | head -c {SIZE}; stty sane\r",
            pattern.replace('\'', "'\\''")
        ))
        .await;
    // What the shell prints itself comes before.
    let begin = b"\x1b[?2004l\r";
    let mut rest = loop {
        if let Some(at) = client.printed.windows(begin.len()).position(|part| part == begin) {
            break client.printed.split_off(at + begin.len());
        }
        let ShellEvent::Output(bytes) = client.shell.next().await else { panic!("it ended") };
        client.printed.extend_from_slice(&bytes);
    };
    let (mut read, mut most, before) = (0, 0, memory());
    let line = format!("{pattern}\n").into_bytes();
    loop {
        for byte in rest.drain(..).take(SIZE - read) {
            assert_eq!(byte, line[read % line.len()], "at {read}");
            read += 1;
        }
        if read == SIZE {
            break;
        }
        most = most.max(memory());
        if read / (1 << 20) % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let next = tokio::time::timeout(Duration::from_secs(20), client.shell.next()).await;
        let Ok(ShellEvent::Output(bytes)) = next else { panic!("{next:?} at {read}") };
        rest.extend_from_slice(&bytes);
    }
    let grown = most.saturating_sub(before);
    assert!(grown < 48 << 20, "memory grew by {grown} bytes");
    for child in sshd.children() {
        let memory = resident(child).unwrap_or(0);
        assert!(memory < 64 << 20, "{memory} bytes in the server's process");
    }
}

fn memory() -> u64 {
    resident(std::process::id()).unwrap()
}

#[tokio::test]
async fn whoever_types_more_than_the_machine_takes_waits() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    client.types("stty raw -echo; printf ready; sleep 2; stty sane; cat >/dev/null\r").await;
    client.until("ready").await;
    let (before, begun) = (memory(), Instant::now());
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let mut taken = 0;
    let typing = async {
        loop {
            assert!(client.shell.input(chunk.clone()).await);
            taken += 1;
        }
    };
    tokio::time::timeout(Duration::from_millis(1_500), typing).await.unwrap_err();
    assert!(taken < 16, "{taken} MB were taken in {:?}", begun.elapsed());
    assert!(memory().saturating_sub(before) < 32 << 20);
    // Waiting ends with the shell.
    let shell = &client.shell;
    let (gave_up, ()) = tokio::join!(
        async {
            let mut count = 0;
            while shell.input(chunk.clone()).await {
                count += 1;
            }
            count
        },
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sshd.signal_children("-KILL");
        }
    );
    assert!(gave_up < 64);
}

#[tokio::test]
async fn ten_thousand_lines_are_pasted_whole() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    let lines: String =
        (0..10_000).map(|n| format!("line {n} of the paste, with some more to it\n")).collect();
    client.types("stty -echo; cat > /tmp/$$.paste; stty echo\r").await;
    client.until("echo\n").await;
    for chunk in lines.as_bytes().chunks(50_000) {
        assert!(client.shell.input(Bytes::copy_from_slice(chunk)).await);
    }
    client.types("\x04").await;
    client.until("$ ").await;
    let expected = lines.len();
    assert_eq!(
        client.run("wc -lc < /tmp/$$.paste; rm /tmp/$$.paste").await.split_whitespace().collect::<Vec<_>>(),
        ["10000", &expected.to_string()]
    );
}

#[tokio::test]
async fn a_host_whose_key_has_changed_is_refused_with_both_fingerprints() {
    let sshd = Sshd::with(&["other_host"], super::sshd::SHELL, "");
    let error = open(&sshd.machine()).await.err().unwrap();
    let (expected, offered) = (sshd.fingerprint("host_ed25519"), sshd.fingerprint("other_host"));
    assert_eq!(error, SshError::HostKeyChanged { expected: expected.clone(), offered: offered.clone() });
    assert_eq!(error.code(), "HOST_KEY_CHANGED");
    assert!(error.to_string().contains(&expected) && error.to_string().contains(&offered));
    // The same for one who only knows a fingerprint, whatever kinds of keys the host has.
    let pin: Pin = expected.parse().unwrap();
    let error = open(&SshTarget { host_key: Some(pin), ..sshd.machine() }).await.err().unwrap();
    assert_eq!(error.code(), "HOST_KEY_CHANGED");
}

#[tokio::test]
async fn a_host_is_known_by_any_of_its_keys() {
    let sshd = Sshd::start();
    for name in ["host_ed25519", "host_ecdsa"] {
        let by_key = sshd.pin(name);
        let by_fingerprint: Pin = sshd.fingerprint(name).parse().unwrap();
        for pin in [by_key, by_fingerprint] {
            let shown =
                test(&SshTarget { host_key: Some(pin), ..sshd.machine() }, &loopback(), Timeouts::default())
                    .await
                    .unwrap();
            assert_eq!(shown.fingerprint, sshd.fingerprint(name));
            assert!(sshd.public(name).starts_with(&shown.key));
        }
    }
    // The pinned kind is gone, and another has come.
    let sshd = Sshd::with(&["host_ecdsa"], super::sshd::SHELL, "");
    assert_eq!(open(&sshd.machine()).await.err().unwrap().code(), "HOST_KEY_CHANGED");
}

#[tokio::test]
async fn a_key_is_learned_where_that_is_asked_for() {
    let sshd = Sshd::start();
    let unknown = SshTarget { host_key: None, ..sshd.machine() };
    // Without logging in.
    let stranger = SshTarget { credential: sshd.key("stranger"), ..unknown.clone() };
    let shown = ask_host_key(&stranger, &loopback(), Timeouts::default()).await.unwrap();
    assert_eq!(shown.fingerprint, sshd.fingerprint("host_ed25519"));
    let pin: Pin = shown.key.parse().unwrap();
    assert_eq!(pin, sshd.pin("host_ed25519"));
    let shell = open(&unknown).await.unwrap();
    assert_eq!(*shell.host_key(), shown);
}

#[tokio::test]
async fn a_host_with_keys_of_other_kinds_only_is_named() {
    let sshd = Sshd::with(&["host_rsa"], super::sshd::SHELL, "");
    let error = ask_host_key(&sshd.machine(), &loopback(), Timeouts::default()).await.err().unwrap();
    assert_eq!(error.code(), "HOST_KEY_UNSUPPORTED");
    assert!(error.to_string().contains("rsa"), "{error}");
}

#[test]
fn what_is_no_host_key_is_said_so() {
    for text in ["", "nonsense", "SHA256:tooshort", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----"]
    {
        assert_eq!(text.parse::<Pin>().unwrap_err().code(), "HOST_KEY_INVALID", "{text}");
    }
}

/// The same key, which says that its passphrase takes so many rounds of bcrypt to try. In the file its number follows the salt:
/// the options of the key derivation, 24 bytes, are the salt's 16 with their length and the number.
fn with_rounds(pem: &str, rounds: u32) -> String {
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut bytes = BASE64_STANDARD.decode(text).unwrap();
    let mark = [0, 0, 0, 24, 0, 0, 0, 16];
    let at = bytes.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len() + 16;
    bytes[at..at + 4].copy_from_slice(&rounds.to_be_bytes());
    let text = BASE64_STANDARD.encode(bytes);
    let lines: Vec<_> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n"))
}

#[tokio::test]
async fn keys_are_read_as_ssh_keygen_writes_them() {
    let sshd = Sshd::start();
    let machine = |credential| SshTarget { credential, ..sshd.machine() };
    for name in ["user", "user_ecdsa"] {
        test(&machine(sshd.key(name)), &loopback(), Timeouts::default()).await.unwrap();
    }
    let SshCredential::Key { pem, .. } = sshd.key("locked") else { panic!("it is a key") };
    let with = |passphrase: Option<&str>| SshCredential::Key {
        pem: pem.clone(),
        passphrase: passphrase.map(str::to_owned),
    };
    test(&machine(with(Some("open sesame"))), &loopback(), Timeouts::default()).await.unwrap();
    for (passphrase, word) in [
        (None, "needs its passphrase"),
        (Some(""), "needs its passphrase"),
        (Some("wrong"), "with this passphrase"),
    ] {
        let error = test(&machine(with(passphrase)), &loopback(), Timeouts::default()).await.unwrap_err();
        assert_eq!(error.code(), "PRIVATE_KEY_UNUSABLE");
        assert!(error.to_string().contains(word), "{error}");
    }
    let began = Instant::now();
    let error = private_key(&with_rounds(&pem, 4_000_000_000), Some("open sesame")).unwrap_err();
    assert!(error.to_string().contains("fewer rounds"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "its rounds were gone through: {:?}", began.elapsed());
    let why = |pem: &str| private_key(pem, None).unwrap_err().to_string();
    let SshCredential::Key { pem, .. } = sshd.key("rsa") else { panic!("it is a key") };
    assert!(why(&pem).contains("ed25519"), "{}", why(&pem));
    assert!(
        why("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n").contains("ed25519")
    );
    assert!(why(&sshd.public("user")).contains("public key"));
    assert!(why("hello").contains("no private key"));
    assert!(why("").contains("no private key"));
    assert!(why(&pem[..pem.len() / 2]).contains("cannot be used"));
    assert!(why(&"x".repeat(100_000)).contains("too long"));
    assert!(why(SHORT).contains("Ed25519"), "{}", why(SHORT));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so() {
    let sshd = Sshd::start();
    let machine = SshTarget { credential: sshd.key("stranger"), ..sshd.machine() };
    let error = open(&machine).await.err().unwrap();
    assert_eq!(
        error,
        SshError::Refused { user: user(), method: "key", accepted: "; it accepts publickey".into() }
    );
    assert_eq!(error.code(), "CREDENTIAL_REFUSED");
    let machine = SshTarget { credential: SshCredential::Password("secret".into()), ..sshd.machine() };
    let error = open(&machine).await.err().unwrap();
    assert_eq!(error.code(), "CREDENTIAL_REFUSED");
    assert!(error.to_string().contains("the password is not accepted; it accepts publickey"), "{error}");
    assert!(!error.to_string().contains("secret"));
    let machine = SshTarget { user: "nobody-of-that-name".into(), ..sshd.machine() };
    assert_eq!(open(&machine).await.err().unwrap().code(), "CREDENTIAL_REFUSED");
}

#[tokio::test]
async fn a_machine_that_gives_no_terminal_is_told_so() {
    let sshd = Sshd::with(&["host_ed25519"], super::sshd::SHELL, "PermitTTY no");
    let error = open(&sshd.machine()).await.err().unwrap();
    assert_eq!(error.code(), "NO_TERMINAL");
    // It can be logged in to all the same.
    test(&sshd.machine(), &loopback(), Timeouts::default()).await.unwrap();
    let sshd = Sshd::with(&["host_ed25519"], super::sshd::SHELL, "MaxSessions 0");
    assert_eq!(open(&sshd.machine()).await.err().unwrap().code(), "NO_TERMINAL");
}

#[tokio::test]
async fn a_banner_is_shown_first() {
    let banner = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(banner.path(), "Authorised use only\n").unwrap();
    let sshd =
        Sshd::with(&["host_ed25519"], super::sshd::SHELL, &format!("Banner {}", banner.path().display()));
    let client = ShellClient::open(&sshd.machine()).await;
    assert!(
        String::from_utf8_lossy(&client.printed).starts_with("Authorised use only\r\n"),
        "{:?}",
        client.text()
    );
}

#[tokio::test]
async fn where_nobody_answers_is_said() {
    let sshd = Sshd::start();
    let quick = Timeouts { answer: Duration::from_millis(500), ..Timeouts::default() };
    let at = |host: &str, port: u16| SshTarget { host: host.into(), port, ..sshd.machine() };
    let error = |machine: SshTarget| async move {
        connect(&machine, &loopback(), Size::USUAL, quick).await.err().unwrap()
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = error(at("127.0.0.1", free)).await;
    assert_eq!(refused.code(), "MACHINE_UNREACHABLE");
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert_eq!(
        error(at("no-such-host.invalid", 22)).await,
        SshError::Unresolved { host: "no-such-host.invalid".into() }
    );
    assert_eq!(error(at("192.0.2.1", 22)).await, SshError::NotAllowed { host: "192.0.2.1".into() });
    // Somebody who says nothing, something else, or goodbye.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let late = error(at("127.0.0.1", silent.local_addr().unwrap().port())).await;
    assert!(matches!(late, SshError::TimedOut { .. }), "{late}");
    for greeting in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", b"SSH-2.0-x\r\n\0\0\0\0\0\0\0\0", &[0xff; 5_000]]
    {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let greeter = std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = other.accept().unwrap();
            stream.write_all(greeting).ok();
        });
        let error = error(at("127.0.0.1", port)).await;
        assert_eq!(error.code(), "SSH_HANDSHAKE_FAILED", "{error}");
        greeter.join().unwrap();
    }
}

/// An ECDSA key whose number begins with a zero, which OpenSSH leaves out.
const SHORT: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS\n\
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQSe+UYR2DeTFYavJlCVRv0PQzZC2ThP\n\
b9uCIWwsdZPuRSO+0jhfxn4wGEhfTM97HJyC7G6KHjEix+1IVLxJ78fJAAAAoIpuNHKKbj\n\
RyAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJ75RhHYN5MVhq8m\n\
UJVG/Q9DNkLZOE9v24IhbCx1k+5FI77SOF/GfjAYSF9Mz3scnILsbooeMSLH7UhUvEnvx8\n\
kAAAAfRaycFxY8qpxNLP9pq7hhTYHivfpXrURDK7l/J+8rDgAAAAVzaG9ydAECAwQ=\n\
-----END OPENSSH PRIVATE KEY-----\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_told_that_it_shows_utf_8_and_backspace_takes_whole_characters() {
    let sshd = Sshd::start();
    let mut client = ShellClient::open(&sshd.machine()).await;
    client.types("stty -a\r").await;
    client.until("$ ").await;
    let modes = client.text();
    for mode in ["iutf8", "icrnl", "ixon", "opost", "onlcr", "echoctl", "echoke"] {
        assert!(modes.split_whitespace().any(|word| word == mode), "{mode}: {modes}");
    }
    assert!(modes.contains("erase = ^?;") && modes.contains("intr = ^C;"), "{modes}");
    // What is typed before the shell has given the terminal to what it runs is the shell's to read.
    client.types("echo re''ady; cat | od -An -tx1\r").await;
    client.until("ready\n").await;
    client.types("aü\u{7f}\u{65e5}\u{7f}b\r\u{4}").await;
    client.until_it("the bytes", |text| text.contains(" 61 62 0a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_know_only_the_curves_of_nist_or_aes_128_gcm_are_talked_to() {
    for setting in [
        "KexAlgorithms ecdh-sha2-nistp256",
        "KexAlgorithms ecdh-sha2-nistp384",
        "KexAlgorithms ecdh-sha2-nistp521",
        "Ciphers aes128-gcm@openssh.com",
    ] {
        let sshd = Sshd::with(&["host_ed25519"], super::sshd::SHELL, setting);
        let mut client = ShellClient::open(&sshd.machine()).await;
        client.types("echo th''ere\r").await;
        client.until_it("there", |text| text.contains("there\n") || text.contains("there\r\n")).await;
    }
}
