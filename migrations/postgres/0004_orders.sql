-- What owners of many sessions ask for: policies, suspension, principals, API keys, schedules, webhooks, and finding
-- ended sessions by what they were.

alter table organization add column barred_before bigint not null default 0;  -- as an application's
alter table organization add column issuers text not null default '[]';        -- JSON: whose access tokens are accepted

alter table application add column policy text;                                -- JSON: what differs from the server's

alter table session add column token_lifetime bigint;                         -- seconds
alter table session add column preset text;
alter table session add column suspended_at bigint;
alter table session add column resumed_at bigint;

alter table session_detail add column application bigint not null default 0;  -- the session's, for the indexes below
alter table session_detail add column client text;                             -- `name` in `client_info`

-- Open sessions are found in memory; these find the ended ones, and the open ones at start-up. A number says when a
-- session connected among its like: lists are in that order.
create index session_open on session (number) where state <> 0;
create index session_ended on session (application, number) where state = 0;
create index session_ended_by_principal on session (application, principal, number) where state = 0;
create index session_ended_by_activity on session (application, last_active_at, number) where state = 0;
create index session_ended_by_expiry on session (application, token_expires_at, number) where state = 0;
create index session_detail_by_hostname on session_detail (application, hostname, number) where hostname is not null;
-- A client may call itself whatever it likes, and no entry of an index can be longer than a third of a page.
create index session_detail_by_client on session_detail (application, client, number) where octet_length(client) <= 1000;

-- An organization's lifecycle events, for its feed, its audit and its webhooks.
create index event_organization on event (organization, position) where type <> 'activity_recorded';
create index revocation_by_organization on revocation (organization, number);
-- The application is the first field of a filter that has one. PostgreSQL reads no JSON that has a NUL in it anywhere.
create index revocation_by_application on revocation
    (organization, substring(filter collate "C" from '^\{"application":([0-9]+)[,}]'), number);
create index principal_by_organization on principal (organization, number);

-- The small things of a directory, each with a stream of its own: how principals stand, API keys, schedules, webhooks.
-- All of them live in memory; `state` is the fold as JSON. Disposable, as every row.
create table item (
    kind         bigint not null,           -- the stream's kind: 6 principal, 7 API key, 8 schedule, 9 webhook
    number       bigint not null,
    id           uuid    not null unique,
    organization bigint not null,
    state        text    not null,
    version      bigint not null,
    head         bigint not null,
    hash         bytea    not null,
    primary key (kind, number)
);

-- Secrets of API keys, as SHA-256, and when each was last used. Not from the log.
create table api_key_secret (
    id           uuid primary key,
    secret_hash  bytea not null,
    last_used_at bigint
);

-- Signing secrets of webhooks, sealed with the secret key; the one before stays valid for a while after a rotation.
-- Not from the log.
create table webhook_secret (
    id           uuid primary key,
    sealed       bytea not null,
    before       bytea,
    before_until bigint
);

-- How far each webhook has been served: everything it wants up to here was delivered, or given a row below. Not from
-- the log.
create table webhook_progress (
    id       uuid primary key,
    position bigint not null
);

-- Deliveries, one an event and webhook. Not from the log; pruned when old.
create table webhook_delivery (
    webhook      uuid    not null,          -- the webhook's id
    position     bigint not null,           -- the event's
    stream       text    not null,          -- what must stay in order: the session, application, … it is of
    attempts     bigint not null,
    next_at      bigint,                    -- when it is tried again; null when it is over
    delivered_at bigint,
    failed_at    bigint,                    -- when it was given up
    status       bigint,                    -- HTTP status of the last answer
    error        text,                      -- why the last attempt failed, for people
    created_at   bigint not null,
    updated_at   bigint not null,
    primary key (webhook, position)
);
create index webhook_delivery_pending on webhook_delivery (webhook, position) where next_at is not null;
create index webhook_delivery_failed on webhook_delivery (webhook, position) where failed_at is not null;
create index webhook_delivery_over on webhook_delivery (updated_at) where next_at is null;

-- Outcomes of requests that carried an Idempotency-Key: written with what they did, replayed for a day. Not from the
-- log.
create table idempotency (
    key         bytea primary key,          -- keyed digest of who asked and the key
    fingerprint bytea    not null,          -- SHA-256 of the request
    salt        bytea    not null,          -- of the secrets in its answer, which are derived again, not kept
    outcome     text    not null,           -- JSON: what the committer answered
    recorded_at bigint not null
);
create index idempotency_by_age on idempotency (recorded_at);
