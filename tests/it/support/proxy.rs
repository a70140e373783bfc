//! A way to a server that fails as networks do: what goes through it is held up, swallowed or cut off, and so in particular is
//! the answer to a COMMIT of PostgreSQL's protocol. It reorders nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A COMMIT as the only message in what is sent: its type, its length, and its text.
const COMMIT: &[u8] = b"Q\0\0\0\x0bcommit\0";

/// What becomes of the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut, and the server has not got it.
    CutBefore,
    /// The connection is cut as soon as the server has got it.
    CutAfter,
    /// The connection is cut once the server has answered.
    CutAnswer,
    /// The answer comes so much later.
    Delay(Duration),
    /// The server has got it, but its answer does not come, nor anything else: neither end hears of the other again.
    SwallowAnswer,
    /// The server has not got it, and neither end hears of the other again.
    SwallowCommit,
}

/// How all connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Well,
    /// Those that there are, are cut, and so is each new one.
    Cut,
    /// Whatever comes is swallowed, and each new connection is made and comes to nothing.
    Swallowing,
    /// Whatever comes is handed on so much later.
    Slow(Duration),
}

/// A port before another one.
pub struct Proxy {
    /// The URL that goes through it.
    pub url: String,
    faults: Faults,
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

/// The one that is to come; shared by all connections.
type Faults = Arc<Mutex<Option<Fault>>>;

impl Proxy {
    /// Puts one before the server of a URL, which names one server with its port.
    pub async fn before(url: &str) -> Self {
        let (start, rest) = url.split_once('@').unwrap();
        let (place, rest) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{start}@{}/{rest}", listener.local_addr().unwrap());
        let (faults, way) = (Faults::default(), watch::Sender::new(Way::Well));
        let accepting = accept(listener, place.to_owned(), faults.clone(), way.subscribe());
        Self { url, faults, way, accepting: tokio::spawn(accepting) }
    }

    /// Has the next COMMIT fail, on whichever connection that comes.
    pub fn fail_next_commit(&self, fault: Fault) {
        self.faults.lock().unwrap().replace(fault);
    }

    /// Whether a COMMIT has come for which the fault was meant.
    pub fn has_failed(&self) -> bool {
        self.faults.lock().unwrap().is_none()
    }

    /// Changes how all connections are, from now on.
    pub fn becomes(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    /// What is connected stays so, until either end closes it.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, place: String, faults: Faults, way: watch::Receiver<Way>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (place, faults, way) = (place.clone(), faults.clone(), way.clone());
        tokio::spawn(async move {
            match TcpStream::connect(place).await {
                Ok(server) => carry(client, server, faults, way).await,
                // Of a server that is gone nothing is heard, not even that.
                Err(_) if *way.borrow() == Way::Swallowing => swallow(client).await,
                Err(_) => {}
            }
        });
    }
}

/// Carries what two ends say to each other, until either has closed the connection, or it is cut.
async fn carry(mut client: TcpStream, mut server: TcpStream, faults: Faults, mut way: watch::Receiver<Way>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let now = way.clone();
    let mut answers = Answers::Come;
    loop {
        tokio::select! {
            () = is_cut(&mut way) => return,
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                if answers == Answers::Swallowed {
                    continue;
                }
                let fault = (asked[..count] == *COMMIT).then(|| faults.lock().unwrap().take()).flatten();
                match fault {
                    None => {}
                    Some(Fault::CutBefore) => return,
                    Some(Fault::CutAfter) => {
                        server.write_all(COMMIT).await.ok();
                        drop(client);
                        // So that the server has done what it was told before it hears that nobody waits for it.
                        server.readable().await.ok();
                        return;
                    }
                    Some(Fault::CutAnswer) => answers = Answers::Cut,
                    Some(Fault::Delay(delay)) => answers = Answers::Late(delay),
                    Some(Fault::SwallowAnswer) => answers = Answers::Swallowed,
                    Some(Fault::SwallowCommit) => {
                        answers = Answers::Swallowed;
                        continue;
                    }
                }
                if hand_on(&asked[..count], &mut server, &now).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let count = read.unwrap_or(0);
                if count == 0 && *now.borrow() == Way::Swallowing {
                    return swallow(client).await;
                }
                match std::mem::replace(&mut answers, Answers::Come) {
                    Answers::Come => {}
                    Answers::Cut => return,
                    Answers::Late(delay) => sleep(delay).await,
                    Answers::Swallowed => {
                        answers = Answers::Swallowed;
                        if count == 0 {
                            return swallow(client).await;
                        }
                        continue;
                    }
                }
                if count == 0 || hand_on(&answered[..count], &mut client, &now).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Resolves when the connections are to be cut.
async fn is_cut(way: &mut watch::Receiver<Way>) {
    if way.wait_for(|way| *way == Way::Cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What becomes of the server's answers on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Come,
    /// The next one cuts the connection.
    Cut,
    /// The next one comes late.
    Late(Duration),
    Swallowed,
}

async fn hand_on(bytes: &[u8], to: &mut TcpStream, way: &watch::Receiver<Way>) -> std::io::Result<()> {
    let now = *way.borrow();
    match now {
        Way::Swallowing => return Ok(()),
        Way::Slow(by) => sleep(by).await,
        Way::Well | Way::Cut => {}
    }
    to.write_all(bytes).await
}

/// Keeps a connection for as long as its client does, and answers nothing.
async fn swallow(mut client: TcpStream) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(1..) = client.read(&mut bytes).await {}
}
