-- The rows: what the log says, as it stands now, for asking. Written in the transaction of the events they come from.
-- Disposable, all of them: `sessiond rebuild` makes them again from the log, byte for byte, and `verify` compares.

create table organization (
    number     bigint primary key,
    id         uuid    not null unique,
    name       text    not null,
    created_at bigint not null,
    version    bigint not null,
    head       bigint not null,             -- position of the stream's last event
    hash       bytea    not null            -- and its hash
);

create table application (
    number        bigint primary key,
    id            uuid    not null unique,
    organization  bigint not null,
    name          text    not null,
    description   text,
    oauth         text    not null,         -- JSON: how it authenticates, without the secret
    upstream      text,                     -- URL of the MCP server behind the gateway
    created_at    bigint not null,
    updated_at    bigint not null,
    archived_at   bigint,
    barred_before bigint not null,          -- credentials issued before this position open no agent-side path
    version       bigint not null,
    head          bigint not null,
    hash          bytea    not null
);
create index application_by_organization on application (organization, created_at, id);

create table service_account (
    number       bigint primary key,
    id           uuid    not null unique,
    organization bigint not null,
    name         text    not null,
    client_id    text    not null unique,
    scopes       text    not null,
    application  bigint,                    -- where it creates sessions when it names no application
    created_at   bigint not null,
    archived_at  bigint,
    version      bigint not null,
    head         bigint not null,
    hash         bytea    not null
);
create index service_account_by_organization on service_account (organization, created_at, id);

-- A session's lifecycle. The activity columns stand as of this row's version; `session_activity` may be ahead.
create table session (
    number            bigint primary key,
    id                uuid    not null unique,
    organization      bigint not null,
    application       bigint not null,
    principal         bigint not null,
    owner_kind        bigint not null,
    owner_id          uuid    not null,
    kind              text    not null,
    state             bigint not null,      -- 2 live, 1 live but announced as expired, 0 ended
    idle_after        bigint not null,      -- seconds, as the next two
    stale_after       bigint not null,
    absolute_lifetime bigint not null,
    connected_at      bigint not null,
    connected_head    bigint not null,      -- position of its Connected
    lifetime_ends_at  bigint not null,
    token_expires_at  bigint not null,
    expiry_announced  bigint,
    credential        uuid,                 -- the access token last recorded with it, by id
    ended_at          bigint,
    ended_reason      text,
    last_active_at    bigint not null,
    requests          bigint not null,
    bytes_in          bigint not null,
    bytes_out         bigint not null,
    version           bigint not null,
    head              bigint not null,
    hash              bytea    not null
);

-- The hot part: one narrow row per session whose activity is newer than its lifecycle row. Gone when the session ends.
create table session_activity (
    number         bigint primary key,
    last_active_at bigint not null,
    requests       bigint not null,
    bytes_in       bigint not null,
    bytes_out      bigint not null,
    version        bigint not null,
    head           bigint not null,
    hash           bytea    not null
) with (fillfactor = 50);                   -- room in each page for what is written again and again: no index changes with it

-- What a session connected with. The personal columns are erasable with the event's `personal`.
create table session_detail (
    number            bigint primary key,
    name              text,
    hostname          text,
    user_agent        text,
    client_info       text,                 -- JSON
    ip                text,
    client_session_id text,
    token_identifier  text,
    protocol_version  text
);

create table revocation (
    number             bigint primary key,
    id                 uuid    not null unique,
    organization       bigint not null,
    filter             text    not null,    -- JSON: which sessions it covers
    reason             text    not null,
    note               text,
    fence              bigint not null,     -- position of its beginning: what connected later is not touched
    instant            bigint not null,
    ended_at           bigint,
    disconnected_count bigint not null,     -- the number of Disconnected events that carry it
    version            bigint not null,
    head               bigint not null,
    hash               bytea    not null
);
create index revocation_unfinished on revocation (number) where ended_at is null;
