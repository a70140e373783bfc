//! Sends one attempt, signed by Standard Webhooks (https://www.standardwebhooks.com), and tells its outcome.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response};
use sessiond_core::Time;
use sessiond_core::delivery::{Attempted, LONGEST_WAIT};

use super::cloud_event::MEDIA_TYPE;
use crate::config::Config;
use crate::directory::SigningKeys;
use crate::outbound::{Allowances, LookUpError, Purpose, Resolver};
use crate::secret;

/// How much of an answer is read, only so that the connection can be used again.
const READ: usize = 1_024;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may be idle: most servers close one later, which must not happen under a request.
const IDLE: Duration = Duration::from_secs(4);

/// The request of one delivery: the URL it goes to, its id and its body.
pub struct DeliveryRequest {
    pub url: String,
    pub id: String,
    pub body: Bytes,
}

/// The client for all receivers. It follows no redirects, uses no proxy, and goes only to addresses that are allowed.
pub struct Sender {
    client: Client,
    allowances: Allowances,
    timeout: Duration,
}

impl Sender {
    pub fn new(config: &Config) -> Result<Self, reqwest::Error> {
        let allowances = Allowances::of(Purpose::Webhook, config, false);
        let client = Client::builder()
            .dns_resolver(Resolver(allowances.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(config.webhook_timeout)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .user_agent(concat!("sessiond/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowances, timeout: config.webhook_timeout })
    }

    pub fn allowances(&self) -> &Allowances {
        &self.allowances
    }

    /// Sends a delivery once, with a time of day that receivers compare with their own. The time-out covers all of it.
    pub async fn send(&self, request: DeliveryRequest, keys: &SigningKeys, now: Time) -> Attempted {
        // The settings may have changed since the URL was set, and the client does not ask its resolver about hosts
        // that are addresses.
        let Ok(url) = self.allowances.check("url", &request.url) else {
            return failed("the URL is not allowed; see --webhook-allow".to_owned());
        };
        let timestamp = now.timestamp().to_string();
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header("webhook-id", &request.id)
            .header("webhook-timestamp", &timestamp)
            .header("webhook-signature", signatures(&request, &timestamp, keys, now))
            .body(request.body);
        match request.send().await {
            Ok(answer) => self.judge(answer, now).await,
            Err(error) => failed(self.words(&error)),
        }
    }

    async fn judge(&self, mut answer: Response, now: Time) -> Attempted {
        let status = answer.status();
        let mut read = 0;
        while read <= READ
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            read += chunk.len();
        }
        let error = match status.as_u16() {
            200..=299 => None,
            300..=399 => Some(format!("answered {}: redirects are not followed", status.as_u16())),
            410 => Some("answered 410: the endpoint is gone".to_owned()),
            code => Some(format!("answered {code}")),
        };
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.filter(|_| error.is_some()).and_then(|text| wait(text, now));
        Attempted { status: Some(status.as_u16()), error, retry_after }
    }

    /// Says in our own words what went wrong: an error's own text may tell about the network behind us.
    fn words(&self, error: &reqwest::Error) -> String {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(not_allowed @ LookUpError::NotAllowed) = inner.downcast_ref() {
                return not_allowed.to_string();
            }
            cause = inner.source();
        }
        if error.is_timeout() {
            format!("no answer within {} s", self.timeout.as_secs())
        } else if error.is_connect() {
            "no connection came about".to_owned()
        } else {
            "the connection broke before an answer came".to_owned()
        }
    }
}

/// The signature, and a second one while the secret before the current one is still valid.
fn signatures(request: &DeliveryRequest, timestamp: &str, keys: &SigningKeys, now: Time) -> String {
    let sign = |key: &[u8]| {
        let parts: [&[u8]; 5] = [request.id.as_bytes(), b".", timestamp.as_bytes(), b".", &request.body];
        format!("v1,{}", secret::sign(key, &parts))
    };
    match &keys.before {
        Some((before, until)) if now < *until => format!("{} {}", sign(&keys.now), sign(before)),
        _ => sign(&keys.now),
    }
}

/// Reads `Retry-After`: seconds, or a date.
fn wait(text: &str, now: Time) -> Option<TimeDelta> {
    let wait = match text.trim().parse::<u32>() {
        Ok(seconds) => TimeDelta::seconds(seconds.into()),
        Err(_) => DateTime::parse_from_rfc2822(text.trim()).ok()?.to_utc() - now,
    };
    Some(wait.clamp(TimeDelta::zero(), LONGEST_WAIT))
}

fn failed(error: String) -> Attempted {
    Attempted { status: None, error: Some(error), retry_after: None }
}
