//! OpenSSH's server on a port and with keys of its own, for the user who runs the tests.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sessiond::terminal::ssh::{Pin, SshCredential, SshTarget, private_key};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";
/// A shell that looks the same whoever runs it.
pub const SHELL: &str =
    "exec env -i TERM=$TERM LC_ALL=C.UTF-8 PATH=/usr/bin:/bin PS1='$ ' bash --norc --noprofile -i";

pub struct Sshd {
    child: Child,
    pub port: u16,
    directory: &'static Keys,
    _own: TempDir,
}

/// Keys are made once for all tests: that takes time.
pub struct Keys {
    directory: TempDir,
}

impl Keys {
    fn made() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| {
            let directory = TempDir::new().unwrap();
            for (name, kind, passphrase) in [
                ("host_ed25519", "ed25519", ""),
                ("host_ecdsa", "ecdsa", ""),
                ("host_rsa", "rsa", ""),
                ("other_host", "ed25519", ""),
                ("user", "ed25519", ""),
                ("user_ecdsa", "ecdsa", ""),
                ("locked", "ed25519", "open sesame"),
                ("stranger", "ed25519", ""),
                ("rsa", "rsa", ""),
            ] {
                make(kind, passphrase, &directory.path().join(name));
            }
            // One in 250 cannot be read by the library we have: that would be a test that fails now and then.
            let ecdsa = directory.path().join("user_ecdsa");
            while private_key(&std::fs::read_to_string(&ecdsa).unwrap(), None).is_err() {
                std::fs::remove_file(&ecdsa).unwrap();
                make("ecdsa", "", &ecdsa);
            }
            let keys = Keys { directory };
            let authorized = ["user", "user_ecdsa", "locked", "rsa"].map(|name| keys.public(name)).join("");
            std::fs::write(keys.path("authorized"), authorized).unwrap();
            keys
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn public(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()
    }
}

fn make(kind: &str, passphrase: &str, path: &Path) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", name, "-f"])
        .arg(path)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen is needed (Debian: openssh-client)");
}

impl Sshd {
    pub fn start() -> Self {
        Self::with(&["host_ed25519", "host_ecdsa"], SHELL, "")
    }

    /// With these host keys, this instead of the user's shell, and further settings.
    pub fn with(host_keys: &[&str], shell: &str, settings: &str) -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is needed for these tests (Debian: openssh-server; make test installs it)"
        );
        let keys = Keys::made();
        if user_id() == "0" {
            // Where sshd of Debian has its children without rights live; systemd would have made it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let own = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host_keys: String =
            host_keys.iter().map(|name| format!("HostKey {}\n", keys.path(name).display())).collect();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\n{host_keys}AuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nMaxStartups 500\nPrintMotd no\nPrintLastLog no\nSetEnv HOME={}\n{settings}\n\
             ForceCommand {shell}\n",
            keys.path("authorized").display(),
            // What whoever runs the tests has in a .bashrc would run before each shell.
            own.path().display(),
        );
        let file = own.path().join("config");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(own.path().join("log")).unwrap();
        // Whoever runs the tests in the background ignores ctrl-C; what runs in a terminal is not to.
        let mut child = Command::new("env")
            .args(["--default-signal", SSHD, "-D", "-e", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let give_up = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(own.path().join("log")).unwrap_or_default();
            assert!(
                child.try_wait().unwrap().is_none() && Instant::now() < give_up,
                "sshd did not start: {log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, port, directory: keys, _own: own }
    }

    /// The machine, its host key pinned, and a key that is let in.
    pub fn machine(&self) -> SshTarget {
        SshTarget {
            host: "127.0.0.1".into(),
            port: self.port,
            user: user(),
            credential: self.key("user"),
            host_key: Some(self.pin("host_ed25519")),
        }
    }

    pub fn key(&self, name: &str) -> SshCredential {
        SshCredential::Key { pem: self.pem(name), passphrase: None }
    }

    /// A private key as OpenSSH writes it.
    pub fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Where that is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path(name)
    }

    pub fn public(&self, name: &str) -> String {
        self.directory.public(name)
    }

    pub fn pin(&self, name: &str) -> Pin {
        self.public(name).parse().unwrap()
    }

    /// What `ssh-keygen -l` says.
    pub fn fingerprint(&self, name: &str) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.path(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    }

    /// The processes that serve connections, and whatever runs in them.
    pub fn children(&self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        descend(self.child.id(), &mut found);
        found
    }

    /// Sends a signal to whatever serves connections.
    pub fn signal_children(&self, signal: &str) {
        for child in self.children() {
            signal_to(child, signal);
        }
    }
}

fn descend(process: u32, found: &mut BTreeSet<u32>) {
    let children =
        std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        found.insert(child);
        descend(child, found);
    }
}

fn signal_to(process: u32, signal: &str) {
    Command::new("kill").args([signal, &process.to_string()]).stderr(Stdio::null()).status().unwrap();
}

fn user_id() -> String {
    let output = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.signal_children("-KILL");
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
