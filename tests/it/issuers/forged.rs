//! Tokens that are not what they claim to be, or not for this.

use serde_json::{Value, json};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_opens_and_every_forgery_of_it_is_401() {
    let provider = Provider::with(Pair::rsa()).await;
    let server = trusting(&provider).await;
    let (header, claims) = (provider.header(), provider.claims(&server, "ada"));
    let good = provider.sign(&header, &claims);
    assert_eq!(opens(&server, &good).await, 201);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[17] ^= 4;
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let (_, middle) = message.split_once('.').unwrap();
    let none = format!("{}.{middle}.", encoded(with("alg", json!("none")).to_string()));
    let hashed = format!("{}.{middle}", encoded(with("alg", json!("HS256")).to_string()));
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, provider.pair.public());
    let hashed = format!("{hashed}.{}", encoded(aws_lc_rs::hmac::sign(&secret, hashed.as_bytes())));
    let attacker = Provider::with(Pair::rsa()).await;
    let keys = format!("{}/keys", attacker.url);
    let forged = [
        ("unsigned", format!("{message}.")),
        ("no signature at all", message.to_owned()),
        ("bit flipped", format!("{message}.{}", encoded(flipped))),
        ("alg none", none),
        ("public key as secret", hashed),
        ("not an accepted algorithm", provider.sign(&with("alg", json!("PS256")), &claims)),
        ("another's key", attacker.sign(&header, &claims)),
        ("jku of an attacker", attacker.sign(&with("jku", json!(keys)), &claims)),
        ("x5u of an attacker", attacker.sign(&with("x5u", json!(keys)), &claims)),
        ("jwk of an attacker", attacker.sign(&with("jwk", attacker.pair.jwk("one")), &claims)),
        ("crit", provider.sign(&with("crit", json!(["x"])), &claims)),
        ("an ID token", provider.sign(&with("typ", json!("JWT")), &claims)),
        ("a logout token", provider.sign(&with("typ", json!("logout+jwt")), &claims)),
        ("a security event", provider.sign(&with("typ", json!("secevent+jwt")), &claims)),
        ("no type", provider.sign(&with("typ", Value::Null), &claims)),
    ];
    for (what, token) in forged {
        assert_eq!(opens(&server, &token).await, 401, "{what}");
    }
    assert_eq!(attacker.hits(), 0);
    assert_eq!(opens(&server, &provider.sign(&with("typ", json!("application/at+JWT")), &claims)).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_token_that_says_the_wrong_thing_is_401() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let now = server.clock.now().timestamp();
    let long = "x".repeat(1_025);
    let wrong = [
        ("aud", json!("https://other.example")),
        ("aud", Value::Null),
        ("iss", json!(format!("{}/", provider.url))),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(long)),
        ("iat", Value::Null),
        ("iat", json!(now + 90)),
        ("exp", Value::Null),
        ("exp", json!(now - 62)),
        ("nbf", json!(now + 90)),
        ("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} })),
        ("padding", json!("x".repeat(8_192))),
    ];
    for (claim, value) in wrong {
        let mut claims = provider.claims(&server, "ada");
        claims[claim] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        }
        let token = provider.sign(&provider.header(), &claims);
        assert_eq!(opens(&server, &token).await, 401, "{claim}: {value}");
    }
    for (claim, value) in [("exp", json!(now - 50)), ("nbf", json!(now + 50)), ("aud", json!(AUDIENCE))] {
        let mut claims = provider.claims(&server, "ada");
        claims[claim] = value;
        let token = provider.sign(&provider.header(), &claims);
        assert_eq!(opens(&server, &token).await, 201, "{claim} within the skew of a minute");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signed_a_token_that_is_no_good_is_told_why_and_so_is_the_log_once_in_a_while() {
    let provider = Provider::start().await;
    let directory = tempfile::TempDir::new().unwrap();
    let daemon = crate::support::Daemon::start(directory.path(), LOOPBACK);
    let operator = daemon.operator().await;
    let (status, body) = operator.put(ISSUERS, json!({ "issuers": [provider.trusted()] })).await;
    assert_eq!(status, 200, "{body}");
    let now = sessiond::clock::Clock::system().now().timestamp();
    let good = json!({
        "iss": provider.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, "scope": "mcp:invoke",
    });
    let header = provider.header();
    let attacker = Provider::start().await;
    let typed = |kind: Value| {
        let mut header = header.clone();
        header["typ"] = kind;
        header
    };
    let cases = [
        (typed(json!("JWT")), "sub", json!("ada"), "typ must be at+jwt"),
        (typed(Value::Null), "sub", json!("ada"), "typ must be at+jwt"),
        (header.clone(), "aud", json!("https://other.example"), "aud does not name the audience"),
        (header.clone(), "aud", Value::Null, "aud must be there"),
        (header.clone(), "iat", Value::Null, "iat must be there"),
        (header.clone(), "iat", json!(now + 900), "iat lies in the future"),
        (header.clone(), "nbf", json!(now + 900), "nbf lies in the future"),
        (header.clone(), "scope", json!(["mcp:invoke"]), "scope must be one text"),
        (header.clone(), "sub", json!(7), "sub must be there"),
    ];
    for (header, claim, value, why) in cases {
        let mut claims = good.clone();
        claims[claim] = value;
        for (path, genuine) in [(SESSIONS, true), (SESSIONS, false)] {
            let signer = if genuine { &provider } else { &attacker };
            let holder = Holder { token: Some(signer.sign(&header, &claims)), ..operator.clone() };
            let answer = holder.send(reqwest::Method::POST, path, Some(&json!({}))).await;
            let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
            assert_eq!(answer.status(), 401);
            if genuine {
                let wanted = format!("Bearer error=\"invalid_token\", error_description=\"{why}");
                assert!(challenge.starts_with(&wanted), "{claim}: {challenge}");
            } else {
                assert_eq!(challenge, "Bearer", "nobody else learns anything");
            }
        }
    }
    let noted = daemon.log().matches("a genuine token of a trusted issuer is refused").count();
    assert_eq!(noted, 1, "once a minute: {}", daemon.log());
    assert!(daemon.log().contains(&provider.url) && daemon.log().contains("typ must be at+jwt"));
}
