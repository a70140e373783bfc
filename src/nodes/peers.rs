//! The way from one node to another. What lives on one, because its bytes are there, is asked for there, whichever node its
//! client came to: the node hands the request on, and says by a seal of the shared key that it does.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use chrono::TimeDelta;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sessiond_store::{Node, Nodes, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::meter;
use crate::outbound;
use crate::secret::{self, SecretKey};

/// The header by which a node says that it hands a request on: `<to>;<until>;<client's address>;<seal>`.
static HANDED_ON: HeaderName = HeaderName::from_static("sessiond-handed-on");
/// How long the seal is good. The clocks of machines differ.
const GOOD_FOR: TimeDelta = TimeDelta::seconds(60);
/// How long what is known of the others is good; and how long it is where it says that there is no such node.
const FRESH: Duration = Duration::from_secs(1);
const BARELY: Duration = Duration::from_millis(50);
/// How long a connection to another node may take to come about, and how long its answer may take to begin.
const CONNECT: Duration = Duration::from_secs(2);
const BEGINNING: Duration = Duration::from_secs(30);
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(4);

/// Marks a request that another node has handed on to this one.
#[derive(Debug, Clone, Copy)]
pub struct HandedOn;

/// Where something lives that lives on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Here, or wherever it is asked for.
    Here,
    /// On another node.
    There(Peer),
    /// On a node that is gone, or lets nobody in for now.
    Gone,
}

/// Another node that lets people in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub number: i64,
    /// Where the others reach it, if it has said so.
    pub url: Option<String>,
}

/// Why another node was not asked.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("node {0} has not said where other nodes reach it: start it with --node-url")]
    NoUrl(i64),
    #[error("node {0} cannot be reached: {1}")]
    Failed(i64, String),
}

/// The other nodes, where there are any.
pub struct Peers {
    among: Option<Among>,
    clock: Clock,
}

struct Among {
    nodes: Arc<dyn Nodes>,
    own: i64,
    known: Mutex<Option<(Instant, Arc<[Node]>)>>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    key: SecretKey,
}

impl Peers {
    /// Where this process is the only one.
    pub fn none(clock: Clock) -> Self {
        Self { among: None, clock }
    }

    /// The others of a node. `authorities` is a file of certificates that they may be vouched for by, beside those that the
    /// system trusts.
    pub fn of(
        nodes: Arc<dyn Nodes>,
        own: i64,
        key: SecretKey,
        clock: Clock,
        authorities: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let tls = outbound::tls(authorities, "--node-ca")?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { among: Some(Among { nodes, own, known: Mutex::default(), client, key }), clock })
    }

    /// This node's number, where there may be others.
    pub fn own(&self) -> Option<i64> {
        self.among.as_ref().map(|among| among.own)
    }

    /// Whether this node is told of the others' commits at once, and does not only look for them.
    pub fn told_at_once(&self) -> bool {
        self.among.as_ref().is_some_and(|among| among.nodes.hears())
    }

    /// Every node on record, as of now or a second ago; none where this process is the only one.
    pub async fn nodes(&self) -> Result<Arc<[Node]>, StoreError> {
        self.nodes_within(FRESH).await
    }

    /// The same, as of so long ago at most.
    async fn nodes_within(&self, age: Duration) -> Result<Arc<[Node]>, StoreError> {
        let Some(among) = &self.among else { return Ok(Arc::default()) };
        let mut known = among.known.lock().await;
        if let Some((_, nodes)) = known.as_ref().filter(|(at, _)| at.elapsed() < age) {
            return Ok(nodes.clone());
        }
        let nodes: Arc<[Node]> = among.nodes.nodes().await?.into();
        *known = Some((Instant::now(), nodes.clone()));
        Ok(nodes)
    }

    /// Who owns what lives on a node; what lives on none is owned wherever it is asked for.
    pub async fn owner_of(&self, node: Option<i64>) -> Result<Owner, StoreError> {
        let Some(number) = node.filter(|node| self.own().is_some_and(|own| own != *node)) else {
            return Ok(Owner::Here);
        };
        let find = |nodes: &[Node]| nodes.iter().find(|one| one.number == number && one.leased).cloned();
        let mut there = find(&self.nodes().await?);
        if there.is_none() {
            // It may have started a moment ago.
            there = find(&self.nodes_within(BARELY).await?);
        }
        Ok(there.map_or(Owner::Gone, |one| Owner::There(Peer { number, url: one.url })))
    }

    /// The other node that something lives on, if it does and that node lets people in, for a request with these extensions. One
    /// that was handed on is answered here, whatever becomes of it.
    pub async fn elsewhere(
        &self,
        node: Option<i64>,
        extensions: &Extensions,
    ) -> Result<Option<Peer>, StoreError> {
        if extensions.get::<HandedOn>().is_some() {
            return Ok(None);
        }
        match self.owner_of(node).await? {
            Owner::There(peer) => Ok(Some(peer)),
            Owner::Here | Owner::Gone => Ok(None),
        }
    }

    /// The client's address, if a request was handed on to this node by another; then this node does not hand it on.
    pub fn handed_on<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let among = self.among.as_ref()?;
        let value = request.headers().get(&HANDED_ON)?.to_str().ok()?;
        let (said, seal) = value.rsplit_once(';')?;
        let mut words = said.split(';');
        let (to, until, address) = (words.next()?, words.next()?, words.next()?);
        let genuine = hex::decode(seal).ok()?.try_into().ok().is_some_and(|seal: [u8; 32]| {
            secret::same(&seal, &among.seal(said, request.method(), request.uri()))
        });
        let until: i64 = until.parse().ok()?;
        let good = self.clock.wall().timestamp_millis() < until && to.parse() == Ok(among.own);
        address.parse().ok().filter(|_| genuine && good)
    }

    /// Sends a request to the node that can answer it, and waits until its answer begins. `from` is its client's address.
    pub async fn hand_on(
        &self,
        peer: &Peer,
        parts: &Parts,
        body: Body,
        from: IpAddr,
    ) -> Result<Response<Incoming>, Unreachable> {
        let failed = |error: String| Unreachable::Failed(peer.number, error);
        let among = self.among.as_ref().ok_or_else(|| failed("there are no other nodes".to_owned()))?;
        let url = peer.url.as_deref().ok_or(Unreachable::NoUrl(peer.number))?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("{}{path}", url.trim_end_matches('/'))
            .parse()
            .map_err(|error: axum::http::uri::InvalidUri| failed(error.to_string()))?;
        let until = (self.clock.wall() + GOOD_FOR).timestamp_millis();
        let said = format!("{};{until};{from}", peer.number);
        let sealed = format!("{said};{}", hex::encode(among.seal(&said, &parts.method, &parts.uri)));
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = of_end_to_end(&parts.headers);
        let sealed = HeaderValue::try_from(sealed).map_err(|error| failed(error.to_string()))?;
        request.headers_mut().insert(&HANDED_ON, sealed);
        let answered = match tokio::time::timeout(BEGINNING, among.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(outbound::causes(&error))),
            Err(_) => Err(failed("it did not answer in time".to_owned())),
        };
        let outcome = if answered.is_ok() { "answered" } else { "unreachable" };
        metrics::counter!(meter::HANDED_ON, "outcome" => outcome).increment(1);
        answered
    }
}

impl Among {
    /// Seals what is said with a request, for this request alone.
    fn seal(&self, said: &str, method: &Method, uri: &Uri) -> [u8; 32] {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        self.key.digest("handed on", &[said.as_bytes(), method.as_str().as_bytes(), path.as_bytes()])
    }
}

/// The headers of a message that are not about its connection.
pub(super) fn of_end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    // An upgrade goes on as what it is.
    let upgrade = headers.get(header::UPGRADE).cloned();
    let named: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
    outbound::HOP.iter().for_each(|name| drop(headers.remove(*name)));
    headers.remove(&HANDED_ON);
    // How long the body is that goes on is said by whoever sends it: the one before may have been read.
    headers.remove(header::CONTENT_LENGTH);
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    headers
}
