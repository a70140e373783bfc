//! Whether the service says truly how it is.

use crate::support::Server;

async fn get(server: &Server, path: &str) -> (u16, String) {
    let response = server.http.get(server.url(path)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_well_says_so_in_a_word_and_on_request_in_detail() {
    let server = Server::start().await;
    assert_eq!(get(&server, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&server, "/readyz").await, (200, "ok\n".to_owned()));
    server.operator().await.connect_many(2).await;
    for query in ["verbose", "verbose=", "verbose=true"] {
        let (status, text) = get(&server, &format!("/readyz?{query}")).await;
        assert_eq!(status, 200, "{text}");
        let lines: Vec<_> = text.lines().collect();
        let (last, looks) = lines.split_last().unwrap();
        assert_eq!(*last, "ok");
        assert!(looks.iter().all(|line| line.starts_with("[+]")), "{text}");
        for look in ["[+]journal_mode wal", "[+]synchronous FULL", "[+]writer ok", "[+]open sessions: 2"] {
            assert!(looks.contains(&look), "{look}: {text}");
        }
        assert!(looks[0].starts_with("[+]sqlite 3.") && looks[0].ends_with(" ok"), "{text}");
        assert!(looks.iter().any(|line| line.starts_with("[+]job ")), "{text}");
    }
    assert_eq!(get(&server, "/readyz?verbose=false").await.1, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_late_or_has_failed_makes_the_service_not_ready() {
    let server = Server::start().await;
    let board = server.running.as_ref().unwrap().house.job_status.clone();
    let every = std::time::Duration::from_secs(3_600);
    board.announce("slow", every, server.clock.now());
    assert!(
        get(&server, "/readyz?verbose").await.1.contains("[+]job slow: last run never: has not run yet\n")
    );
    board.ran("slow", server.clock.now(), Err("no luck".to_owned()));
    let (status, text) = get(&server, "/readyz?verbose").await;
    assert_eq!(status, 503);
    assert!(text.contains("s ago: failed: no luck\n") && text.ends_with("\nnot ready\n"), "{text}");
    assert_eq!(get(&server, "/readyz").await, (503, "not ready\n".to_owned()));
    assert_eq!(get(&server, "/livez").await.0, 200, "it need not be restarted for that");
    board.ran("slow", server.clock.now(), Ok("all done".to_owned()));
    assert_eq!(get(&server, "/readyz").await.0, 200);
    board.announce("late", every, server.clock.now() - chrono::TimeDelta::seconds(4 * 3_600));
    let (status, text) = get(&server, "/readyz?verbose").await;
    assert_eq!(status, 503);
    assert!(text.contains("[-]job late: last run never, late: has not run yet\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_often_whether_it_is_ready_does_not_keep_the_writer_busy() {
    let server = Server::start().await;
    let ok = async || get(&server, "/readyz?verbose").await.1.contains("[+]writer ok\n");
    assert!(ok().await);
    // A writer that is gone would be found out at once if it were asked each time.
    server.running.as_ref().unwrap().house.sessions.maintenance.stop().await;
    assert!(ok().await, "what it said a moment ago still counts");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    assert!(!ok().await, "but not for long");
    assert_eq!(get(&server, "/readyz").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_the_address_is_told_where_they_are_and_where_to_go_on() {
    let server = Server::start().await;
    let (status, text) = get(&server, "/").await;
    assert!(status == 200 && text.contains("sessiond") && text.contains("/oauth2/token"), "{text}");
    for path in text.lines().filter_map(|line| line.split(' ').next()).filter(|word| word.starts_with('/')) {
        let path = path.replace("{application}", &server.application().await);
        let status = server.http.get(server.url(&path)).send().await.unwrap().status();
        assert_ne!(status, 404, "{path} is named, and is not there");
    }
}
