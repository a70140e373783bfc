//! One shell, and those who are at it.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sessiond::terminal::frame::Size;
use sessiond::terminal::hub::{
    Attachment, Hub, InputRefusal, NeverPrinted, Options, Piece, REPLAY, TerminalEnd, TerminalEvent,
};
use sessiond::terminal::ssh;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::ssh::open;
use super::sshd::Sshd;

async fn hub(sshd: &Sshd) -> Hub {
    Hub::start(open(&sshd.machine()).await.unwrap(), Size::USUAL, Options::default())
}

/// A client: what it has got, all of it confirmed.
struct Client {
    attachment: Attachment,
    got: Vec<u8>,
}

impl Client {
    fn write(hub: &Hub, after: u64) -> Self {
        Self { attachment: hub.write(Some(after)).unwrap(), got: Vec::new() }
    }

    async fn types(&self, text: &str) {
        self.attachment
            .input_handle()
            .input(Bytes::copy_from_slice(text.as_bytes()), async || ())
            .await
            .unwrap();
    }

    /// The next piece, confirmed.
    async fn piece(&mut self) -> Piece {
        let piece = timeout(Duration::from_secs(20), self.attachment.next()).await.expect("nothing comes");
        if let Piece::Output { bytes, position } = &piece {
            self.got.extend_from_slice(bytes);
            self.attachment.confirm(*position);
        }
        piece
    }

    async fn until(&mut self, end: &str) {
        while !self.got.ends_with(end.as_bytes()) {
            let piece = self.piece().await;
            assert!(matches!(piece, Piece::Output { .. }), "{piece:?} before {end:?}");
        }
    }

    async fn ends(&mut self) -> Piece {
        loop {
            let piece = self.piece().await;
            if !matches!(piece, Piece::Output { .. }) {
                return piece;
            }
        }
    }
}

const PROMPT: &str = "$ ";

#[tokio::test]
async fn who_writes_and_who_watches_see_the_same() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    let mut viewer = Client { attachment: hub.watch(Some(0)).unwrap(), got: Vec::new() };
    writer.types("seq 1 3000; exit 3\r").await;
    let end = Piece::End(TerminalEnd::Shell(ssh::ShellEnd::Exited(3)));
    assert_eq!(writer.ends().await, end);
    assert_eq!(viewer.ends().await, end);
    assert!(String::from_utf8_lossy(&writer.got).contains("\r\n2999\r\n3000\r\n"));
    assert_eq!(writer.got, viewer.got);
    assert_eq!(hub.counts(), ("seq 1 3000; exit 3\r".len() as u64, writer.got.len() as u64));
    assert_eq!(hub.ended().await, TerminalEnd::Shell(ssh::ShellEnd::Exited(3)));
    assert_eq!(
        writer.attachment.input_handle().input(Bytes::from_static(b"x"), async || ()).await,
        Err(InputRefusal::Ended)
    );
}

#[tokio::test]
async fn who_may_only_watch_does_not_type() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let viewer = hub.watch(Some(0)).unwrap();
    assert_eq!(
        viewer.input_handle().input(Bytes::from_static(b"exit\r"), async || ()).await,
        Err(InputRefusal::ReadOnly)
    );
    assert_eq!(viewer.input_handle().resize(Size { cols: 1, rows: 1 }).await, Err(InputRefusal::ReadOnly));
    assert_eq!((hub.size(), hub.counts().0), (Size::USUAL, 0));
}

#[tokio::test]
async fn a_size_reaches_the_shell() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    let size = Size { cols: 101, rows: 33 };
    writer.attachment.input_handle().resize(size).await.unwrap();
    writer.types("stty size; exit\r").await;
    writer.ends().await;
    assert!(String::from_utf8_lossy(&writer.got).contains("33 101\r\n"));
    assert_eq!(hub.size(), size);
}

/// Numbered lines, from which it can be told whether any is missing or there twice.
fn numbers(upto: usize) -> String {
    (1..=upto).map(|n| format!("{n}\r\n")).collect()
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_gets_nothing_twice() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut client = Client::write(&hub, 0);
    client.until(PROMPT).await;
    client.types("seq 1 400000\r").await;
    // The connection breaks again and again; of what was sent last, some never arrives.
    let mut round = 0;
    while !client.got.ends_with(b"\r\n400000\r\n\x1b[?2004h$ ") {
        round += 1;
        for _ in 0..=round % 13 {
            timeout(Duration::from_millis(20), client.piece()).await.ok();
        }
        let arrived = client.got.len() as u64;
        for _ in 0..round % 4 {
            // Sent, and lost on the way.
            timeout(Duration::from_millis(20), client.attachment.next()).await.ok();
        }
        let got = std::mem::take(&mut client.got);
        drop(client);
        if round % 5 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        client = Client { attachment: hub.write(Some(arrived)).unwrap(), got };
        assert_eq!((client.attachment.lost, client.attachment.position()), (0, arrived));
    }
    client.types("exit\r").await;
    client.ends().await;
    let text = String::from_utf8_lossy(&client.got).into_owned();
    let begin = text.find("1\r\n2\r\n").unwrap();
    assert!(text[begin..].starts_with(&numbers(400_000)), "after {round} rounds");
    assert!(round > 10, "{round}");
}

#[tokio::test]
async fn who_is_away_is_waited_for_with_a_full_buffer_and_no_more() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut client = Client::write(&hub, 0);
    client.until(PROMPT).await;
    client.types("seq 1 1000000; echo over\r").await;
    client.piece().await;
    let arrived = client.got.len() as u64;
    drop(client.attachment);
    sleep(Duration::from_secs(1)).await;
    let (_, printed) = hub.counts();
    let held = printed - arrived;
    assert!((REPLAY as u64..REPLAY as u64 + 64_000).contains(&held), "{held} bytes are held");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(hub.counts().1, printed, "the shell is read on though nobody is there");
    let mut client = Client { attachment: hub.write(Some(arrived)).unwrap(), got: client.got };
    assert_eq!(client.attachment.lost, 0);
    client.until("over\r\n\u{1b}[?2004h$ ").await;
    let text = String::from_utf8_lossy(&client.got).into_owned();
    assert!(text[text.find("1\r\n2\r\n").unwrap()..].starts_with(&numbers(1_000_000)));
}

#[tokio::test]
async fn a_writer_that_confirms_nothing_stops_the_shell() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = hub.write(Some(0)).unwrap();
    writer.input_handle().input(Bytes::from_static(b"yes\r"), async || ()).await.unwrap();
    let reading = async {
        loop {
            writer.next().await;
        }
    };
    timeout(Duration::from_secs(1), reading).await.unwrap_err();
    let (_, printed) = hub.counts();
    assert!((REPLAY as u64..REPLAY as u64 + 64_000).contains(&printed), "{printed}");
    // What was never sent cannot be confirmed.
    writer.confirm(writer.position() + 1);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(hub.counts().1, printed);
    // Keys get through, and it goes on with the first word of having arrived.
    writer.input_handle().input(Bytes::from_static(b"\x03"), async || ()).await.unwrap();
    writer.confirm(writer.position());
    let mut client = Client { attachment: writer, got: Vec::new() };
    client.until(PROMPT).await;
    assert!(client.got.len() < 8 << 20);
}

#[tokio::test]
async fn a_viewer_that_falls_behind_is_told_so_and_slows_nobody() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    let mut viewer = hub.watch(Some(0)).unwrap();
    assert!(matches!(viewer.next().await, Piece::Output { .. }));
    writer.types("seq 1 300000\r").await;
    writer.until("\r\n300000\r\n\u{1b}[?2004h$ ").await;
    let at = viewer.position();
    let Piece::Lost { bytes, position } = viewer.next().await else { panic!("it has missed something") };
    assert_eq!(at + bytes, position);
    let held = writer.attachment.position() - position;
    assert!(held >= REPLAY as u64, "as much as can be is still there: {held}");
    let mut viewer = Client { attachment: viewer, got: Vec::new() };
    viewer.until("\r\n300000\r\n\u{1b}[?2004h$ ").await;
    assert!(writer.got.ends_with(&viewer.got), "it goes on where it was told");
    // One that comes late is told at once.
    let late = hub.watch(Some(10)).unwrap();
    assert_eq!(late.position(), late.lost + 10);
    assert!(late.lost > 1_000_000);
}

#[tokio::test]
async fn a_new_writer_takes_the_place_of_the_old_one() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut old = Client::write(&hub, 0);
    old.until(PROMPT).await;
    let at = old.attachment.position();
    let mut new = Client::write(&hub, at);
    assert_eq!(old.piece().await, Piece::Replaced);
    assert_eq!(
        old.attachment.input_handle().input(Bytes::from_static(b"exit\r"), async || ()).await,
        Err(InputRefusal::Replaced)
    );
    assert_eq!(
        old.attachment.input_handle().resize(Size { cols: 9, rows: 9 }).await,
        Err(InputRefusal::Replaced)
    );
    old.attachment.confirm(at);
    // Its leaving is nobody's leaving.
    drop(old);
    assert!(timeout(Duration::from_millis(300), hub.deserted(Duration::from_millis(50))).await.is_err());
    new.types("echo still here\r").await;
    new.until("still here\r\n\u{1b}[?2004h$ ").await;
    drop(new);
    timeout(Duration::from_secs(5), hub.deserted(Duration::from_millis(50))).await.unwrap();
}

#[tokio::test]
async fn one_whom_nobody_comes_to_is_deserted() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    // Watching is not being there.
    let _viewer = hub.watch(Some(0)).unwrap();
    let begun = Instant::now();
    hub.deserted(Duration::from_millis(300)).await;
    assert!(begun.elapsed() >= Duration::from_millis(250));
    // Coming back in time begins it anew.
    let deserted = hub.deserted(Duration::from_millis(400));
    tokio::pin!(deserted);
    for _ in 0..4 {
        drop(hub.write(Some(0)).unwrap());
        assert!(timeout(Duration::from_millis(200), &mut deserted).await.is_err());
    }
    timeout(Duration::from_secs(5), deserted).await.unwrap();
}

#[tokio::test]
async fn nothing_is_handed_out_after_a_cut() {
    let sshd = Sshd::start();
    for round in 0..5 {
        let hub = hub(&sshd).await;
        let mut writer = Client::write(&hub, 0);
        let mut viewer = hub.watch(Some(0)).unwrap();
        writer.until(PROMPT).await;
        writer.types("yes\r").await;
        for _ in 0..round * 7 {
            writer.piece().await;
        }
        let begun = Instant::now();
        hub.cut();
        assert_eq!(writer.piece().await, Piece::End(TerminalEnd::Cut));
        assert_eq!(viewer.next().await, Piece::End(TerminalEnd::Cut));
        assert_eq!(
            writer.attachment.input_handle().input(Bytes::from_static(b"x"), async || ()).await,
            Err(InputRefusal::Ended)
        );
        assert_eq!(hub.ended().await, TerminalEnd::Cut);
        let mut late = hub.watch(Some(0)).unwrap();
        assert_eq!(late.next().await, Piece::End(TerminalEnd::Cut));
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
        hub.cut();
    }
    // The shells are gone, too.
    let give_up = Instant::now() + Duration::from_secs(10);
    while !sshd.children().is_empty() {
        assert!(Instant::now() < give_up, "{:?}", sshd.children());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_cut_ends_waiting_too() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    writer.types("stty raw -echo; echo ready; sleep 60\r").await;
    writer.until("ready\n").await;
    let much = Bytes::from(vec![b'x'; 32 << 20]);
    let hand = writer.attachment.input_handle();
    let (refused, ()) = tokio::join!(hand.input(much, async || ()), async {
        sleep(Duration::from_millis(500)).await;
        hub.cut();
    });
    assert_eq!(refused, Err(InputRefusal::Ended));
}

#[tokio::test]
async fn a_machine_that_is_lost_is_told_after_what_it_printed() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    writer.types("echo last words\r").await;
    sleep(Duration::from_millis(300)).await;
    sshd.signal_children("-KILL");
    let end = writer.ends().await;
    assert!(matches!(end, Piece::End(TerminalEnd::Shell(ssh::ShellEnd::Lost(_)))), "{end:?}");
    assert!(String::from_utf8_lossy(&writer.got).contains("\rlast words\r\n"));
}

#[tokio::test]
async fn a_position_of_another_terminal_is_refused() {
    let sshd = Sshd::start();
    let hub = hub(&sshd).await;
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    let printed = hub.counts().1;
    assert_eq!(hub.watch(Some(printed + 1)).err(), Some(NeverPrinted { printed }));
    assert_eq!(hub.write(Some(u64::MAX)).err(), Some(NeverPrinted { printed }));
    // And the writer has kept its place.
    writer.types("exit\r").await;
    assert_eq!(writer.ends().await, Piece::End(TerminalEnd::Shell(ssh::ShellEnd::Exited(0))));
}

#[tokio::test]
async fn output_is_held_to_its_rate() {
    let sshd = Sshd::start();
    let options = Options { rate: NonZeroU64::new(200_000), ..Options::default() };
    let hub = Hub::start(open(&sshd.machine()).await.unwrap(), Size::USUAL, options);
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    let begun = Instant::now();
    writer.types("yes | head -c 800000; exit\r").await;
    writer.ends().await;
    // A second's worth at once, the rest at the rate.
    assert!(begun.elapsed() >= Duration::from_millis(2_500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_recorder_is_told_everything_in_order() {
    let sshd = Sshd::start();
    let (recorder, mut events) = mpsc::channel(4);
    let options = Options { recorder: Some(recorder), ..Options::default() };
    let hub = Hub::start(open(&sshd.machine()).await.unwrap(), Size::USUAL, options);
    let recorded = tokio::spawn(async move {
        let mut recorded = Vec::new();
        while let Some(event) = events.recv().await {
            // It is not the quickest.
            sleep(Duration::from_micros(200)).await;
            let ended = matches!(event, TerminalEvent::Ended { .. });
            recorded.push(event);
            if ended {
                break;
            }
        }
        recorded
    });
    let mut writer = Client::write(&hub, 0);
    writer.until(PROMPT).await;
    writer.attachment.input_handle().resize(Size { cols: 70, rows: 20 }).await.unwrap();
    for n in 0..20 {
        writer.types(&format!("echo round {n}\r")).await;
        writer.until(&format!("round {n}\r\n\u{1b}[?2004h$ ")).await;
    }
    writer.types("seq 1 20000; exit 5\r").await;
    writer.ends().await;
    let recorded = recorded.await.unwrap();
    let (mut output, mut input, mut sizes, mut last) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for event in &recorded {
        let at = match event {
            TerminalEvent::Output { at, bytes } => {
                output.extend_from_slice(bytes);
                at
            }
            TerminalEvent::Input { at, bytes } => {
                input.extend_from_slice(bytes);
                // Its echo comes after it.
                let shown = String::from_utf8_lossy(&output).into_owned();
                let typed = String::from_utf8_lossy(bytes);
                assert!(!shown.contains(typed.trim_end()), "{typed}");
                at
            }
            TerminalEvent::Resized { at, size } => {
                sizes.push(*size);
                at
            }
            TerminalEvent::Ended { at, end } => {
                assert_eq!(*end, TerminalEnd::Shell(ssh::ShellEnd::Exited(5)));
                at
            }
        };
        assert!(*at + 5_000 >= last, "{at} after {last}");
        last = last.max(*at);
    }
    assert!(matches!(recorded.last(), Some(TerminalEvent::Ended { .. })));
    assert_eq!(output, writer.got);
    assert_eq!(sizes, [Size { cols: 70, rows: 20 }]);
    assert_eq!(input.len() as u64, hub.counts().0);
}
