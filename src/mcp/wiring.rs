//! Sessions and wires (HTTP+SSE): how a wire gets its session, and keeps it as long as both last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use sessiond_core::session::Session;

use super::errand::Stop;
use super::forward::Outgoing;
use super::kept::{Kept, sealed};
use super::legacy::not_entered;
use super::line::End;
use super::reply::{Fault, Refusal};
use super::sse::{PATIENCE, no_stream, taken};
use super::standing::{AGAIN, TRIES};
use super::upstream::{self, LAST_EVENT_ID};
use super::wire::Wire;
use super::{Gateway, Visit};
use crate::error::Error;
use crate::gate::Pass;

/// Most sessions of one principal among which one without its wire is looked for.
const MOST_OPEN: usize = 64;
/// How long what the upstream says by itself is left alone after its stream was closed.
const SHORTEST_PAUSE: Duration = Duration::from_millis(125);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Gateway {
    /// Gives a wire the session of a client that came back without saying which it had: the SDKs' clients open a new stream
    /// then and go on as if nothing had been. Only where one session alone of this principal and client has lost its wire;
    /// a client that has just begun says `initialize` first and never gets here.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        visit: &Visit,
        wire: &Arc<Wire>,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let mut without = vec![];
        for session in self.sessions.open_of(&visit.caller, visit.application.number, MOST_OPEN) {
            let read = self.wires.of_session(session.number).is_some_and(|wire| wire.line.is_read());
            if read || !self.is_of_client(visit, &session).await? {
                continue;
            }
            let far = self.far.of(&self.sessions, &session).await;
            without.extend(far.ok().filter(|far| far.now().wire).map(|_| session));
        }
        let [session] = &without[..] else { return Ok(()) };
        let former = self.wires.of_session(session.number);
        self.wire_up(visit, wire, session.clone(), None)?;
        if let Some(former) = former {
            wire.succeed(&former).await;
        }
        self.stand_by(visit, wire, session.clone(), headers);
        Ok(())
    }

    /// Remembers that a session is of HTTP+SSE.
    pub(super) async fn keep_wire(&self, session: &Session) {
        let Ok(held) = self.far.of(&self.sessions, session).await else { return };
        let kept = Kept { wire: true, ..Kept::clone(&held.now()) };
        if let Err(error) = self.sessions.update_mcp(session, &sealed(&kept)).await {
            tracing::warn!(?error, session = %session.id, "a client that comes back will not find its session");
        }
        held.set(kept);
    }

    /// Gives a wire its session, and watches over both: the one ends with the other.
    pub(super) fn wire_up(
        self: &Arc<Self>,
        visit: &Visit,
        wire: &Arc<Wire>,
        session: Session,
        mcp_session_id: Option<&str>,
    ) -> Result<(), Refusal> {
        let refused = |error| not_entered(error, visit, vec![], false);
        self.sessions.still_welcome(&visit.caller, session.application).map_err(refused)?;
        // The wire is that of whoever opened the stream, and that credential may be good no more.
        let pass = match self.sessions.enter(&wire.opener, &session) {
            Ok(pass) => pass,
            Err(error) => {
                wire.line.end(End::Done);
                self.wires.remove(wire);
                return Err(refused(error));
            }
        };
        wire.give(session.clone(), mcp_session_id);
        self.wires.insert(wire);
        let visit = Visit { caller: wire.opener.clone(), ..visit.clone() };
        let mut errand = self.errand(&visit, &session, pass, vec![]);
        let (gateway, wire) = (self.clone(), wire.clone());
        tokio::spawn(async move {
            let stop = tokio::select! {
                biased;
                stop = errand.watch() => Some(stop),
                () = wire.line.given_up().cancelled() => Some(Stop::Crowded),
                () = wire.line.deserted(PATIENCE) => None,
            };
            match stop {
                // Its client comes back, to the same session; its calls are told now, because nothing of them is left.
                Some(Stop::Stopping) => wire.cut_off(&Fault::stopping()),
                Some(stop) => wire.cut_off(&errand.fault(stop)),
                None => wire.line.end(End::Done),
            }
            let own = match (stop, errand.pass.as_ref().and_then(Pass::reason)) {
                (Some(Stop::Ended), Some(reason)) => {
                    gateway.wires.bury(&wire, reason);
                    false
                }
                _ => gateway.wires.remove(&wire),
            };
            errand.let_go();
            if stop.is_none() && own {
                gateway.leave(&visit, &session).await.ok();
            }
        });
        Ok(())
    }

    /// Has what the upstream says by itself come on the wire too.
    pub(super) fn stand_by(
        self: &Arc<Self>,
        visit: &Visit,
        wire: &Arc<Wire>,
        session: Session,
        headers: &HeaderMap,
    ) {
        let mut headers = upstream::inward(headers, visit.application.upstream_headers.as_ref());
        headers.remove(&LAST_EVENT_ID);
        let (application, body) = (session.application, Bytes::new());
        let outgoing = Outgoing { application, method: Method::GET, headers, body };
        let standing =
            Standing { gateway: self.clone(), wire: wire.clone(), visit: visit.clone(), session, outgoing };
        tokio::spawn(standing.run());
    }
}

/// What the upstream says by itself, on its way to a wire.
struct Standing {
    gateway: Arc<Gateway>,
    wire: Arc<Wire>,
    visit: Visit,
    session: Session,
    outgoing: Outgoing,
}

impl Standing {
    /// Carries for as long as there is the wire. The upstream may close its stream at any time, and a session that was opened
    /// there anew has another: its client, who has one stream for all, cannot know.
    async fn run(mut self) {
        let (mut pause, mut taken_times) = (SHORTEST_PAUSE, 0);
        loop {
            let began = Instant::now();
            let again_in = match self.once().await {
                Once::Over => return,
                Once::Healed => Duration::ZERO,
                // It has not noticed yet that the stream before this one is over.
                Once::Taken if taken_times < TRIES => {
                    taken_times += 1;
                    AGAIN
                }
                Once::Taken | Once::Closed => {
                    let lasted = began.elapsed() > LONGEST_PAUSE;
                    pause = if lasted { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(again_in) => {}
                () = self.wire.line.over() => return,
            }
        }
    }

    async fn once(&mut self) -> Once {
        let Self { gateway, wire, visit, session, .. } = &*self;
        let pass = match gateway.sessions.enter(&visit.caller, session) {
            Ok(pass) => pass,
            // It goes on when it is resumed.
            Err(Error::Denied { code: "session_suspended", .. }) => return Once::Closed,
            Err(_) => return Once::Over,
        };
        let Ok(far) = gateway.far.of(&gateway.sessions, session).await else { return Once::Over };
        let errand = gateway.errand(visit, session, pass, vec![]);
        let home = far.now().home();
        let standing = gateway.exchange_on(wire, errand, visit, session, self.outgoing.clone(), None);
        let stood = tokio::select! {
            stood = standing => stood,
            () = wire.line.over() => return Once::Over,
            () = far.left(&home) => {
                self.outgoing.headers.remove(&LAST_EVENT_ID);
                return Once::Healed;
            }
        };
        match stood {
            Err(fault) if fault == taken() => Once::Taken,
            Err(fault) if fault == no_stream() => Once::Over,
            Err(_) => Once::Closed,
            Ok(last) => {
                if let Some(id) = last.and_then(|id| HeaderValue::from_bytes(&id).ok()) {
                    self.outgoing.headers.insert(LAST_EVENT_ID.clone(), id);
                }
                Once::Closed
            }
        }
    }
}

/// How a stream that was opened at the upstream for a wire ended.
enum Once {
    /// There is nobody to carry for any more, or nothing to be had.
    Over,
    Taken,
    Closed,
    Healed,
}
