//! Whether two Gates are the same: the proof that changes are all that a second one needs.

use super::{GateState, Open};

impl GateState {
    /// The fields in which another state differs from this one, of those that changes make. Both have to have had the
    /// moments looked at that have come, since what sessions are filed under follows the clock.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        // Every field is named, so that a new one does not go without an answer here.
        let Self {
            clients,
            unfinished,
            sessions,
            by_id,
            by_key,
            index,
            ordered,
            expiries,
            access_tokens,
            given_up,
            key_secrets,
            barrings,
            bars,
            own_clients,
            trusting,
            principals,
            met,
            principals_by_id,
            principal_ids,
            streams,
            streams_by_id,
            totals,
            resource_totals,
            media_streams,
            // What one process alone has: whom it cut off and let in, whom it saw, when it has to look at whom again (which
            // may be too early, depending on when it last looked), who listens.
            changes: _,
            coverage: _,
            holdings: _,
            stirred: _,
            woken: _,
            looked_at: _,
            deadlines: _,
            departures: _,
            sightings: _,
            tells_departures: _,
        } = self;
        let same_sessions = sessions.len() == other.sessions.len()
            && sessions
                .iter()
                .all(|(number, open)| other.sessions.get(number).is_some_and(|one| open.is_same(one)));
        let fields = [
            ("clients", *clients == other.clients),
            ("unfinished", *unfinished == other.unfinished),
            ("sessions", same_sessions),
            ("by_id", *by_id == other.by_id),
            ("by_key", *by_key == other.by_key),
            ("index", *index == other.index),
            ("ordered", *ordered == other.ordered),
            ("expiries", *expiries == other.expiries),
            ("access_tokens", *access_tokens == other.access_tokens),
            ("given_up", *given_up == other.given_up),
            ("key_secrets", key_secrets.is_same(&other.key_secrets)),
            ("barrings", *barrings == other.barrings),
            ("bars", *bars == other.bars),
            ("own_clients", *own_clients == other.own_clients),
            ("trusting", *trusting == other.trusting),
            ("principals", *principals == other.principals),
            ("met", *met == other.met),
            ("principals_by_id", *principals_by_id == other.principals_by_id),
            ("principal_ids", *principal_ids == other.principal_ids),
            ("streams", *streams == other.streams),
            ("streams_by_id", *streams_by_id == other.streams_by_id),
            ("totals", *totals == other.totals),
            ("resource_totals", *resource_totals == other.resource_totals),
            ("media_streams", *media_streams == other.media_streams),
        ];
        fields.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

impl Open {
    fn is_same(&self, other: &Self) -> bool {
        let Self {
            session,
            terms,
            status,
            stands_at,
            key,
            token,
            mcp_hash,
            changes_at: _,
            woken: _,
            stirred: _,
            presented: _,
            seen_at: _,
            alive_at: _,
            deadline: _,
            flight: _,
        } = self;
        *session == other.session
            && *terms == other.terms
            && *status == other.status
            && *stands_at == other.stands_at
            && *key == other.key
            && *token == other.token
            && *mcp_hash == other.mcp_hash
    }
}
