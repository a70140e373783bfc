-- The rows: what the log says, as it stands now, for asking. Written in the transaction of the events they come from.
-- Disposable, all of them: `sessiond rebuild` makes them again from the log, byte for byte, and `verify` compares.

create table organization (
    number     integer primary key,
    id         blob    not null unique,
    name       text    not null,
    created_at integer not null,
    version    integer not null,
    head       integer not null,            -- position of the stream's last event
    hash       blob    not null             -- and its hash
) strict;

create table application (
    number        integer primary key,
    id            blob    not null unique,
    organization  integer not null,
    name          text    not null,
    description   text,
    oauth         text    not null,         -- JSON: how it authenticates, without the secret
    upstream      text,                     -- URL of the MCP server behind the gateway
    created_at    integer not null,
    updated_at    integer not null,
    archived_at   integer,
    barred_before integer not null,         -- credentials issued before this position open no agent-side path
    version       integer not null,
    head          integer not null,
    hash          blob    not null
) strict;
create index application_by_organization on application (organization, created_at, id);

create table service_account (
    number       integer primary key,
    id           blob    not null unique,
    organization integer not null,
    name         text    not null,
    client_id    text    not null unique,
    scopes       text    not null,
    application  integer,                   -- where it creates sessions when it names no application
    created_at   integer not null,
    archived_at  integer,
    version      integer not null,
    head         integer not null,
    hash         blob    not null
) strict;
create index service_account_by_organization on service_account (organization, created_at, id);

-- A session's lifecycle. The activity columns stand as of this row's version; `session_activity` may be ahead.
create table session (
    number            integer primary key,
    id                blob    not null unique,
    organization      integer not null,
    application       integer not null,
    principal         integer not null,
    owner_kind        integer not null,
    owner_id          blob    not null,
    kind              text    not null,
    state             integer not null,     -- 2 live, 1 live but announced as expired, 0 ended
    idle_after        integer not null,     -- seconds, as the next two
    stale_after       integer not null,
    absolute_lifetime integer not null,
    connected_at      integer not null,
    connected_head    integer not null,     -- position of its Connected
    lifetime_ends_at  integer not null,
    token_expires_at  integer not null,
    expiry_announced  integer,
    credential        blob,                 -- the access token last recorded with it, by id
    ended_at          integer,
    ended_reason      text,
    last_active_at    integer not null,
    requests          integer not null,
    bytes_in          integer not null,
    bytes_out         integer not null,
    version           integer not null,
    head              integer not null,
    hash              blob    not null
) strict;
create index session_list on session (application, state, connected_at, id);

-- The hot part: one narrow row per session whose activity is newer than its lifecycle row. Gone when the session ends.
create table session_activity (
    number         integer primary key,
    last_active_at integer not null,
    requests       integer not null,
    bytes_in       integer not null,
    bytes_out      integer not null,
    version        integer not null,
    head           integer not null,
    hash           blob    not null
) strict;

-- What a session connected with. The personal columns are erasable with the event's `personal`.
create table session_detail (
    number            integer primary key,
    name              text,
    hostname          text,
    user_agent        text,
    client_info       text,                 -- JSON
    ip                text,
    client_session_id text,
    token_identifier  text,
    protocol_version  text
) strict;

create table revocation (
    number             integer primary key,
    id                 blob    not null unique,
    organization       integer not null,
    filter             text    not null,    -- JSON: which sessions it covers
    reason             text    not null,
    note               text,
    fence              integer not null,    -- position of its beginning: what connected later is not touched
    instant            integer not null,
    ended_at           integer,
    disconnected_count integer not null,    -- the number of Disconnected events that carry it
    version            integer not null,
    head               integer not null,
    hash               blob    not null
) strict;
create index revocation_unfinished on revocation (number) where ended_at is null;
