//! What stands between a client and the gateway: an address that stays while what is behind it moves, and connections that
//! break when a test wants them to.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::House;

pub struct BreakableProxy {
    pub address: SocketAddr,
    /// None while nobody is behind it: then connections wait.
    behind: watch::Sender<Option<SocketAddr>>,
    open: Arc<Mutex<CancellationToken>>,
}

impl BreakableProxy {
    pub async fn before(house: &House) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, target) = watch::channel(Some(house.address()));
        let open = Arc::new(Mutex::new(CancellationToken::new()));
        let current = open.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, cut) = (target.clone(), current.lock().clone());
                tokio::spawn(async move { cut.run_until_cancelled(carry(client, target)).await });
            }
        });
        Self { address, behind, open }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Lets newcomers wait.
    pub fn hold(&self) {
        self.behind.send_replace(None);
    }

    pub fn lead_to(&self, house: &House) {
        self.behind.send_replace(Some(house.address()));
    }

    /// Breaks every connection there is.
    pub fn cut(&self) {
        std::mem::take(&mut *self.open.lock()).cancel();
    }
}

async fn carry(mut client: TcpStream, mut target: watch::Receiver<Option<SocketAddr>>) -> Option<()> {
    let target = (*target.wait_for(Option::is_some).await.ok()?)?;
    let mut server = TcpStream::connect(target).await.ok()?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
