-- What owners of many sessions ask for: policies, suspension, principals, API keys, schedules, webhooks, and finding
-- ended sessions by what they were.

alter table organization add column barred_before integer not null default 0;  -- as an application's
alter table organization add column issuers text not null default '[]';        -- JSON: whose access tokens are accepted

alter table application add column policy text;                                -- JSON: what differs from the server's

alter table session add column token_lifetime integer;                         -- seconds
alter table session add column preset text;
alter table session add column suspended_at integer;
alter table session add column resumed_at integer;

alter table session_detail add column application integer not null default 0;  -- the session's, for the indexes below
alter table session_detail add column client text;                             -- `name` in `client_info`
update session_detail
set application = coalesce((select application from session where session.number = session_detail.number), 0),
    client = case when json_type(client_info, '$.name') = 'text' then json_extract(client_info, '$.name') end;

-- Open sessions are found in memory; these find the ended ones, and the open ones at start-up. A number says when a
-- session connected among its like: lists are in that order.
drop index session_list;
create index session_open on session (number) where state <> 0;
create index session_ended on session (application, number) where state = 0;
create index session_ended_by_principal on session (application, principal, number) where state = 0;
create index session_ended_by_activity on session (application, last_active_at, number) where state = 0;
create index session_ended_by_expiry on session (application, token_expires_at, number) where state = 0;
create index session_detail_by_hostname on session_detail (application, hostname, number) where hostname is not null;
create index session_detail_by_client on session_detail (application, client, number) where client is not null;

-- An organization's lifecycle events, for its feed, its audit and its webhooks.
create index event_organization on event (organization, position) where type <> 'activity_recorded';
create index revocation_by_organization on revocation (organization, number);
create index principal_by_organization on principal (organization, number);

-- The small things of a directory, each with a stream of its own: how principals stand, API keys, schedules, webhooks.
-- All of them live in memory; `state` is the fold as JSON. Disposable, as every row.
create table item (
    kind         integer not null,          -- the stream's kind: 6 principal, 7 API key, 8 schedule, 9 webhook
    number       integer not null,
    id           blob    not null unique,
    organization integer not null,
    state        text    not null,
    version      integer not null,
    head         integer not null,
    hash         blob    not null,
    primary key (kind, number)
) strict, without rowid;

-- Secrets of API keys, as SHA-256, and when each was last used. Not from the log.
create table api_key_secret (
    id           blob primary key,
    secret_hash  blob not null,
    last_used_at integer
) strict, without rowid;

-- Signing secrets of webhooks, sealed with the secret key; the one before stays valid for a while after a rotation.
-- Not from the log.
create table webhook_secret (
    id           blob primary key,
    sealed       blob not null,
    before       blob,
    before_until integer
) strict, without rowid;

-- How far each webhook has been served: everything it wants up to here was delivered, or given a row below. Not from
-- the log.
create table webhook_progress (
    id       blob primary key,
    position integer not null
) strict, without rowid;

-- Deliveries, one an event and webhook. Not from the log; pruned when old.
create table webhook_delivery (
    webhook      blob    not null,          -- the webhook's id
    position     integer not null,          -- the event's
    stream       text    not null,          -- what must stay in order: the session, application, … it is of
    attempts     integer not null,
    next_at      integer,                   -- when it is tried again; null when it is over
    delivered_at integer,
    failed_at    integer,                   -- when it was given up
    status       integer,                   -- HTTP status of the last answer
    error        text,                      -- why the last attempt failed, for people
    created_at   integer not null,
    updated_at   integer not null,
    primary key (webhook, position)
) strict, without rowid;
create index webhook_delivery_pending on webhook_delivery (webhook, position) where next_at is not null;
create index webhook_delivery_failed on webhook_delivery (webhook, position) where failed_at is not null;
create index webhook_delivery_over on webhook_delivery (updated_at) where next_at is null;

-- Outcomes of requests that carried an Idempotency-Key: written with what they did, replayed for a day. Not from the
-- log.
create table idempotency (
    key         blob primary key,           -- keyed digest of who asked and the key
    fingerprint blob    not null,           -- SHA-256 of the request
    salt        blob    not null,           -- of the secrets in its answer, which are derived again, not kept
    outcome     text    not null,           -- JSON: what the committer answered
    recorded_at integer not null
) strict, without rowid;
create index idempotency_by_age on idempotency (recorded_at);
