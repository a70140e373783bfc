-- Retention: what was let go of the log leaves this, so that both chains of hashes go on over it.

-- Where events were let go. Part of the log, never thrown away: with `event` it covers every position once. In a commit of
-- which something is kept each event has a row with its hash; whole commits that were let go, one after the other, are one
-- row, with the hash of the last commit in it.
create table gone (
    first       bigint primary key,         -- position
    last        bigint not null,
    hash        bytea,                      -- of the one event; null where whole commits went
    commit_hash bytea                       -- of the commit that ends at `last`; null where none does
);
create unique index gone_end on gone (last) where commit_hash is not null;

-- Kept events whose predecessors in their stream were let go: what their hash builds on. Part of the log likewise.
create table cut (
    position bigint primary key,            -- of the kept event
    previous bigint not null,               -- position of the last kept event before it in its stream
    hash     bytea    not null              -- of the event just before it
);

-- What the sessions that were let go came to, by what they were connected to. Disposable.
create table let_go_resource (
    application bigint not null,
    resource    text    not null,
    sessions    bigint not null,
    bytes_out   bigint not null,
    primary key (application, resource)
);

-- How far folding has come along the log, by organization. Whoever throws it away has it begin again.
create table folding (
    organization bigint primary key,
    position     bigint not null
);

alter table organization add column retention text;    -- JSON: what it chose of how long things are kept
alter table organization add column let_go text;       -- JSON: how much it has let go

-- Ended sessions by when they ended; with their versions, so that to count their events costs the index alone.
create index session_ended_at on session (organization, ended_at, number, version) where state = 0;

-- The session that an answer is about: it is forgotten with that.
alter table idempotency add column session bigint;
create index idempotency_by_session on idempotency (session) where session is not null;
