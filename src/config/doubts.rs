//! Finds settings that are possible and were hardly meant. They are logged at the start, and hold all the same.

use std::time::Duration;

use super::Config;

/// What is doubtful about a configuration, in words.
pub fn doubts(config: &Config) -> Vec<String> {
    let mut doubts = Vec::new();
    for (shorter, short, longer, long, so) in pairs(config) {
        if short > long {
            let (short, long) = (words(short), words(long));
            doubts.push(format!("--{shorter} is {short}, longer than --{longer} with {long}: {so}"));
        }
    }
    let encrypted = config.tls_certificate.is_some();
    if encrypted && config.public_url.iter().any(|url| url.starts_with("http://")) {
        doubts.push("--public-url begins with http:// although connections here are encrypted".to_owned());
    }
    if config.credentials_file.is_some() && config.bootstrap_client_id.is_some() {
        doubts.push("--credentials-file is not written where the first credentials are chosen".to_owned());
    }
    doubts
}

type Pair = (&'static str, Duration, &'static str, Duration, &'static str);

/// Options of which the second makes the first meaningless if it is shorter.
fn pairs(config: &Config) -> [Pair; 8] {
    let stale = ("stale-after", config.stale_after);
    let mcp_stale = ("mcp-stale-after", config.mcp_stale_after);
    let pair = |name, short, (longer, long): (&'static str, Duration), so| (name, short, longer, long, so);
    [
        pair("idle-after", config.idle_after, stale, "sessions end before they read as idle"),
        pair("idle-after", config.idle_after, mcp_stale, "MCP sessions end before they read as idle"),
        pair("mcp-unused-after", config.mcp_unused_after, mcp_stale, "the shorter of the two counts"),
        pair(
            "token-lifetime",
            config.token_lifetime,
            ("absolute-lifetime", config.absolute_lifetime),
            "tokens of sessions end with them",
        ),
        pair(
            "stale-after",
            config.stale_after,
            ("absolute-lifetime", config.absolute_lifetime),
            "no session goes stale before its lifetime is over",
        ),
        pair(
            "body-timeout",
            config.body_timeout,
            ("request-timeout", config.request_timeout),
            "a request has no answer any more when its body may still come",
        ),
        pair(
            "terminal-idle",
            config.terminal_idle,
            ("terminal-lifetime", config.terminal_lifetime),
            "no terminal ends for want of typing",
        ),
        pair(
            "terminal-grace",
            config.terminal_grace,
            ("terminal-lifetime", config.terminal_lifetime),
            "a terminal ends before anybody has to come back",
        ),
    ]
}

/// A duration as it would be written in an option.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
