//! All settings: from flags, the environment and a file, in this order of precedence.

mod doubts;
pub mod environment;
pub mod file;
pub mod names;
mod parse;

pub use doubts::doubts;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// The text that is shown in place of a secret.
const REDACTED: &str = "(redacted)";

/// How the lines of the service's own log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// How `sessiond serve` runs.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "SESSIOND_LISTEN", default_value = "127.0.0.1:8080", value_parser = parse::address, value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Where sessions are recorded: a file (sqlite:FILE), or a database of a PostgreSQL server (postgres://USER@HOST/NAME),
    /// whose password stands better in the environment (PGPASSWORD) or in ~/.pgpass
    #[arg(
        long,
        env = "SESSIOND_DATABASE",
        hide_env_values = true,
        default_value = "sqlite:sessiond.db",
        value_name = "URL"
    )]
    pub database: String,

    /// Start only where whatever is answered is on a second machine by then: on a PostgreSQL server with a synchronous standby
    #[arg(long, env = "SESSIOND_REQUIRE_SYNCHRONOUS")]
    pub require_synchronous: bool,

    /// File with the TLS certificate and those that lead to its authority, PEM; read again on SIGHUP
    #[arg(long, env = "SESSIOND_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// File with the certificate's private key, PEM; read again on SIGHUP
    #[arg(long, env = "SESSIOND_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// URL at which clients reach this server; may be given several times, the first is the one that is told to whoever has
    /// not asked [default: the address listened on, https:// with a certificate]
    #[arg(long, env = "SESSIOND_PUBLIC_URL", value_delimiter = ',', value_parser = parse::public_url, value_name = "URL")]
    pub public_url: Vec<String>,

    /// Listen on an address other machines can reach although connections are not encrypted (put a TLS proxy in front).
    /// Not needed for --listen with a certificate
    #[arg(long, env = "SESSIOND_INSECURE_HTTP")]
    pub insecure_http: bool,

    /// File with the key that seals other systems' secrets [default: beside the database's file, made if missing; for a
    /// PostgreSQL server it must be named and exist]
    #[arg(long, env = "SESSIOND_SECRET_KEY_FILE", value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,

    /// Address at which Prometheus may ask for /metrics, without encryption or credentials [default: none]
    #[arg(long, env = "SESSIOND_METRICS_LISTEN", value_parser = parse::address, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    /// Answer /metrics under this name too, not only under addresses, localhost and the name in --public-url; may be given
    /// several times
    #[arg(long, env = "SESSIOND_METRICS_HOST", value_delimiter = ',', value_name = "NAME")]
    pub metrics_host: Vec<String>,

    /// How the service writes its own log to standard error: text for people, json for programs, a line an object
    /// [default: text on a terminal, else json]
    #[arg(long, env = "SESSIOND_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Requests a second that one credential may make, and at once after quiet; 0 is no limit; read again on SIGHUP
    #[arg(long, env = "SESSIOND_RATE_LIMIT", default_value = "600", value_name = "NUMBER")]
    pub rate_limit: u32,

    /// URL at which the other nodes reach this one, where several serve one PostgreSQL database [default: the address listened
    /// on, if it is a single one]
    #[arg(long, env = "SESSIOND_NODE_URL", value_parser = parse::public_url, value_name = "URL")]
    pub node_url: Option<String>,

    /// PEM file of certificate authorities that other nodes may be vouched for by too, beside those the system trusts; read
    /// at the start
    #[arg(long, env = "SESSIOND_NODE_CA", value_name = "FILE")]
    pub node_ca: Option<PathBuf>,

    /// Believe X-Forwarded-For of proxies in this network; may be given several times
    #[arg(long, env = "SESSIOND_TRUSTED_PROXY", value_delimiter = ',', value_parser = parse::network, value_name = "CIDR")]
    pub trusted_proxy: Vec<IpNet>,

    /// Connections open at the same time; further ones wait
    #[arg(long, env = "SESSIOND_MAX_CONNECTIONS", default_value = "50000", value_parser = connections, value_name = "NUMBER")]
    pub max_connections: usize,

    /// A client has this long for the TLS handshake, and again for the head of each request
    #[arg(long, env = "SESSIOND_HEAD_TIMEOUT", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub head_timeout: Duration,

    /// A connection is kept between two requests for this long, which each answer announces. Proxies should let go of theirs
    /// sooner
    #[arg(long, env = "SESSIOND_IDLE_TIMEOUT", default_value = "2m", value_parser = duration, value_name = "DURATION")]
    pub idle_timeout: Duration,

    /// A client has this long to send the whole body of a request; on /mcp, where bodies are larger, four times as long
    #[arg(long, env = "SESSIOND_BODY_TIMEOUT", default_value = "15s", value_parser = duration, value_name = "DURATION")]
    pub body_timeout: Duration,

    /// The bodies of all requests together take so much memory, in MiB; beyond that, requests with a body get 503
    #[arg(long, env = "SESSIOND_BODY_MEMORY_MIB", default_value = "256", value_parser = clap::value_parser!(u16).range(1..), value_name = "MIB")]
    pub body_memory_mib: u16,

    /// A request that has no answer after this long gets 503; not revocations, feeds and /mcp
    #[arg(long, env = "SESSIOND_REQUEST_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub request_timeout: Duration,

    /// Without activity for this long a session reads as idle
    #[arg(long, env = "SESSIOND_IDLE_AFTER", default_value = "5m", value_parser = duration, value_name = "DURATION")]
    pub idle_after: Duration,

    /// Without a sign of life for this long a session is disconnected
    #[arg(long, env = "SESSIOND_STALE_AFTER", default_value = "15m", value_parser = duration, value_name = "DURATION")]
    pub stale_after: Duration,

    /// The same for MCP sessions, paused while a call or stream is open
    #[arg(long, env = "SESSIOND_MCP_STALE_AFTER", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub mcp_stale_after: Duration,

    /// The same for MCP sessions that made no second request; never longer than --mcp-stale-after
    #[arg(long, env = "SESSIOND_MCP_UNUSED_AFTER", default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub mcp_unused_after: Duration,

    /// Life of the tokens issued here
    #[arg(long, env = "SESSIOND_TOKEN_LIFETIME", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub token_lifetime: Duration,

    /// A session ends this long after it connected, whatever happens
    #[arg(long, env = "SESSIOND_ABSOLUTE_LIFETIME", default_value = "24h", value_parser = duration, value_name = "DURATION")]
    pub absolute_lifetime: Duration,

    /// A task that was ended from outside keeps its state for so long at most, unless its cluster says sooner that it is over
    #[arg(long, env = "SESSIOND_WORKLOAD_GRACE", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub workload_grace: Duration,

    /// Keep activity events for this long; then the last of each session and day
    #[arg(long, env = "SESSIOND_KEEP_ACTIVITY", default_value = "7d", value_parser = duration, value_name = "DURATION")]
    pub keep_activity: Duration,

    /// Keep sessions for this long after they ended, and then let go of all that is known of them; kept for ever if absent
    #[arg(long, env = "SESSIOND_KEEP_ENDED", value_parser = duration, value_name = "DURATION")]
    pub keep_ended: Option<Duration>,

    /// Keep the log lines and recordings of sessions for this long
    #[arg(long, env = "SESSIOND_KEEP_LINES", default_value = "30d", value_parser = duration, value_name = "DURATION")]
    pub keep_lines: Duration,

    /// Keep at most so many MiB of them, the newest; 0 is no limit
    #[arg(long, env = "SESSIOND_KEEP_LINES_MIB", default_value_t = 0, value_name = "MIB")]
    pub keep_lines_mib: u32,

    /// Allow upstream MCP servers in this network too, not only, with https, at public addresses and, for the first
    /// organization, on loopback; may be given several times. Link-local addresses are never allowed
    #[arg(long, env = "SESSIOND_ALLOW_UPSTREAM", value_delimiter = ',', value_parser = parse::network, value_name = "CIDR")]
    pub allow_upstream: Vec<IpNet>,

    /// An upstream MCP server has this long to begin its answer to a call, and to finish one whose client has gone
    #[arg(long, env = "SESSIOND_UPSTREAM_TIMEOUT", default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub upstream_timeout: Duration,

    /// MiB that the MCP gateway holds in memory at most for one call or stream, which is also the largest message of HTTP+SSE;
    /// beyond that it is refused
    #[arg(long, env = "SESSIOND_MCP_STREAM_MIB", default_value = "32", value_parser = mebibytes, value_name = "MIB")]
    pub mcp_stream_mib: u32,

    /// The same for all calls and streams of one session together; beyond that the oldest is given up
    #[arg(long, env = "SESSIOND_MCP_SESSION_MIB", default_value = "64", value_parser = mebibytes, value_name = "MIB")]
    pub mcp_session_mib: u32,

    /// The same for one application
    #[arg(long, env = "SESSIOND_MCP_APPLICATION_MIB", default_value = "128", value_parser = mebibytes, value_name = "MIB")]
    pub mcp_application_mib: u32,

    /// The same in all
    #[arg(long, env = "SESSIOND_MCP_TOTAL_MIB", default_value = "256", value_parser = mebibytes, value_name = "MIB")]
    pub mcp_total_mib: u32,

    /// PEM file of certificate authorities that upstream MCP servers may be vouched for by too, beside those the system
    /// trusts; read at the start
    #[arg(long, env = "SESSIOND_UPSTREAM_CA", value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,

    /// Accept browsers' requests to /mcp from this origin too, not only from our own; may be given several times
    #[arg(long, env = "SESSIOND_ALLOW_ORIGIN", value_delimiter = ',', value_parser = parse::origin, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,

    /// Require clientInfo.sessionId when an MCP client initializes
    #[arg(long, env = "SESSIOND_REQUIRE_CLIENT_SESSION_ID")]
    pub require_client_session_id: bool,

    /// Applications of an organization that are made because a portal, a cluster or a media server names them; those that are
    /// archived do not count
    #[arg(long, env = "SESSIOND_MAX_MADE_APPLICATIONS", default_value_t = 1_000, value_name = "NUMBER")]
    pub max_made_applications: u32,

    /// Media streams of an organization, which are made when they are first named
    #[arg(long, env = "SESSIOND_MAX_MADE_STREAMS", default_value_t = 100_000, value_name = "NUMBER")]
    pub max_made_streams: u32,

    /// People and clients that an organization can have met; beyond that only those who are known get in
    #[arg(long, env = "SESSIOND_MAX_PRINCIPALS", default_value_t = 1_000_000, value_name = "NUMBER")]
    pub max_principals: u32,

    /// Exports under way at a time, each of which holds some thousands of sessions or events in memory
    #[arg(long, env = "SESSIOND_MAX_EXPORTS", default_value_t = 4, value_name = "NUMBER")]
    pub max_exports: u32,

    /// Time zone of times on the media surface (/v1), a name of the IANA database
    #[arg(long, env = "SESSIOND_MEDIA_TIME_ZONE", default_value = "UTC", value_parser = time_zone, value_name = "NAME")]
    pub media_time_zone: Tz,

    /// Allow webhooks to addresses in this network too, not only to public ones; may be given several times. Link-local
    /// addresses are never allowed
    #[arg(long, env = "SESSIOND_WEBHOOK_ALLOW", value_delimiter = ',', value_parser = parse::network, value_name = "CIDR")]
    pub webhook_allow: Vec<IpNet>,

    /// Allow webhooks to this machine itself, and there to http:// too
    #[arg(long, env = "SESSIOND_WEBHOOK_ALLOW_LOOPBACK")]
    pub webhook_allow_loopback: bool,

    /// Fetch keys of external issuers from addresses in this network too, not only from public ones; may be given several
    /// times. Link-local addresses are never allowed
    #[arg(long, env = "SESSIOND_ISSUER_ALLOW", value_delimiter = ',', value_parser = parse::network, value_name = "CIDR")]
    pub issuer_allow: Vec<IpNet>,

    /// Allow external issuers on this machine itself, and there at http:// too
    #[arg(long, env = "SESSIOND_ISSUER_ALLOW_LOOPBACK")]
    pub issuer_allow_loopback: bool,

    /// Let an organization take an issuer's tokens for an audience that others could name too: "<organization id> <issuer>
    /// <audience>"; may be given several times. The first organization takes those that are given to no other
    #[arg(long, env = "SESSIOND_ISSUER_CLAIM", value_delimiter = ',', value_name = "CLAIM")]
    pub issuer_claim: Vec<IssuerClaim>,

    /// A webhook's receiver has this long to answer
    #[arg(long, env = "SESSIOND_WEBHOOK_TIMEOUT", default_value = "15s", value_parser = duration, value_name = "DURATION")]
    pub webhook_timeout: Duration,

    /// Allow terminals on machines in this network too, not only, for the first organization, on loopback; may be given several
    /// times. Link-local addresses are never allowed
    #[arg(long, env = "SESSIOND_ALLOW_MACHINE", value_delimiter = ',', value_parser = parse::network, value_name = "CIDR")]
    pub allow_machine: Vec<IpNet>,

    /// A terminal session ends this long after it began, whatever happens
    #[arg(long, env = "SESSIOND_TERMINAL_LIFETIME", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub terminal_lifetime: Duration,

    /// A terminal session ends when nothing was typed for this long
    #[arg(long, env = "SESSIOND_TERMINAL_IDLE", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub terminal_idle: Duration,

    /// Whoever lost the connection to a terminal has this long to come back, and to come at all
    #[arg(long, env = "SESSIOND_TERMINAL_GRACE", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub terminal_grace: Duration,

    /// Bytes a second that a terminal may print, and at once after quiet; 0 is no limit
    #[arg(long, env = "SESSIOND_TERMINAL_OUTPUT_RATE", default_value = "0", value_name = "BYTES")]
    pub terminal_output_rate: u64,

    /// Write the credentials made at the first start to this new file, readable by its owner only, instead of standard output
    #[arg(long, env = "SESSIOND_CREDENTIALS_FILE", value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,

    /// Client id of the service account made at the first start, instead of one made up
    #[arg(long, env = "SESSIOND_BOOTSTRAP_CLIENT_ID", value_parser = parse::client_id, value_name = "ID")]
    pub bootstrap_client_id: Option<String>,

    /// Its secret, of 32 characters or more. Set it in the environment: flags are seen by every user of the machine
    #[arg(long, env = "SESSIOND_BOOTSTRAP_CLIENT_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub bootstrap_client_secret: Option<String>,
}

/// The operator's word that an organization takes an issuer's tokens for an audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerClaim {
    pub organization: Uuid,
    pub issuer: String,
    pub audience: String,
}

impl FromStr for IssuerClaim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not \"<organization id> <issuer> <audience>\"");
        let mut parts = text.split(' ');
        let (Some(organization), Some(issuer), Some(audience), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let organization = organization.parse().map_err(|_| wrong())?;
        Ok(Self { organization, issuer: issuer.to_owned(), audience: audience.to_owned() })
    }
}

impl Config {
    /// The base of URLs for clients that did not come by another URL of ours, without a slash at its end.
    pub fn public_url(&self, listening: SocketAddr) -> String {
        self.public_urls(listening).swap_remove(0)
    }

    /// Where the other nodes reach this one, if that is known.
    pub fn node_url(&self, listening: SocketAddr) -> Option<String> {
        let scheme = if self.tls_certificate.is_some() { "https" } else { "http" };
        let single = !listening.ip().is_unspecified();
        self.node_url.clone().or_else(|| single.then(|| format!("{scheme}://{listening}")))
    }

    /// The bases of all URLs that are ours; at least one.
    pub fn public_urls(&self, listening: SocketAddr) -> Vec<String> {
        let scheme = if self.tls_certificate.is_some() { "https" } else { "http" };
        let mut urls: Vec<_> =
            self.public_url.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        if urls.is_empty() {
            urls.push(format!("{scheme}://{listening}"));
        }
        urls
    }
}

/// The URL of a database as it may be shown: passwords are left out, wherever a URL can have them. Of one that leaves open
/// where its password ends nothing is shown.
pub fn without_password(url: &str) -> String {
    if url.starts_with("sqlite:") {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return REDACTED.to_owned() };
    let (place, parameters) = match rest.find(['?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if parameters.contains('@') {
        return format!("{scheme}://{REDACTED}");
    }
    let place = match place.rsplit_once('@') {
        Some((user, host)) => match user.find([':', '/']) {
            Some(at) => format!("{}:{REDACTED}@{host}", &user[..at]),
            None => place.to_owned(),
        },
        None => place.to_owned(),
    };
    let secret =
        |name: &str| percent_decode_str(name).decode_utf8_lossy().to_lowercase().contains("password");
    let shown = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if secret(name) => format!("{name}={REDACTED}"),
        _ => parameter.to_owned(),
    };
    let parameters: Vec<_> = parameters.split('&').map(shown).collect();
    format!("{scheme}://{place}{}", parameters.join("&"))
}

/// Reads a name of the IANA time zone database.
fn time_zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| "a name of the IANA database is wanted, such as Europe/Berlin".to_owned())
}

/// Reads how many connections may be open.
fn connections(text: &str) -> Result<usize, String> {
    // A semaphore cannot count more than this, and a larger number would be no limit either.
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("a number between 1 and 1000000 is wanted".to_owned()),
    }
}

/// Reads `90`, `90s`, `5m`, `1h`, `7d`: whole seconds, at least one, at most ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is not a duration; write 30s, 5m, 1h or 7d"))?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        unit => return Err(format!("unknown unit {unit:?}; write 30s, 5m, 1h or 7d")),
    };
    match number.checked_mul(factor) {
        Some(seconds @ 1..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("a duration must be between 1s and 3650d".to_owned()),
    }
}

/// Reads a size in MiB, of which there must be at least one.
fn mebibytes(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ 1..=1_048_576) => Ok(size),
        _ => Err("must be a number of MiB, from 1 to 1048576".to_owned()),
    }
}
