-- The log. The truth; never thrown away. One row per event, written once. Only three things are ever changed in
-- place: `body` of an old activity event is pruned (its digest stays in `body_digest`), `personal` is erased, and
-- nothing else.
--
-- There is no index on activity events: each event points at the one before it in its stream, and the stream's head
-- stands in its row. That is what makes writing them cheap.
create table event (
    position          bigint primary key,   -- contiguous from 1, given out by the writer
    stream_kind       bigint not null,      -- 1 organization, 2 application, 3 service account, 4 session, 5 revocation
    stream_number     bigint not null,
    version           bigint not null,      -- contiguous from 1 in the stream
    previous_position bigint not null,      -- of the stream; 0 for its first event
    occurred_at       bigint not null,      -- when it took effect; milliseconds since 1970, UTC, as every time here
    recorded_at       bigint not null,      -- when it was written; never falls along the log
    type              text    not null,
    type_version      bigint not null,
    organization      bigint not null,
    application       bigint,
    actor_kind        bigint not null,      -- 0 system, 1 operator, 2 session, 3 application, 4 service account
    actor_id          uuid,                 -- UUID; null for system and operator
    revocation        bigint,               -- the revocation that caused it
    request_id        text,
    traceparent       text,
    body              text,                 -- JSON, the exact bytes that were hashed; null once pruned
    body_digest       bytea,                -- SHA-256 of the body; written when the body goes, derivable before
    personal          text,                 -- JSON with a salt inside; the body holds its SHA-256; null once erased
    hash              bytea    not null,    -- SHA-256 over the stream's hash before it, this header and the body's digest
    commit_hash       bytea                 -- with the last event of each commit: SHA-256 over the commit before it and
                                            -- the hashes of this commit's events
);

-- A stream's lifecycle, for its own feed and history; an application's, for its feed.
create index event_stream on event (stream_kind, stream_number, version) where type <> 'activity_recorded';
create index event_application on event (application, position) where type <> 'activity_recorded' and application is not null;

-- How far two kinds of housekeeping have come along the log. `settled`: activity is in `session_activity` up to here,
-- start-up folds what lies beyond (disposable: `rebuild` sets it). `pruned`: old activity bodies were dropped up to here.
create table mark (
    name     text primary key,
    position bigint not null
);
