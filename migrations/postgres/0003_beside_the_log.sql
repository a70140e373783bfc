-- What does not come from the log: secrets (hashes of ours, other systems' sealed) and people. `rebuild` leaves these
-- alone; losing them loses credentials, not history.

-- Secrets of OAuth clients, as SHA-256.
create table client_secret (
    client_id   text primary key,
    secret_hash bytea not null
);

-- Access tokens (`sat_…`). Pruned after they expire.
create table access_token (
    id           uuid primary key,          -- UUID, part of the token
    secret_hash  bytea    not null,         -- SHA-256
    organization bigint not null,
    client_kind  bigint not null,           -- actor kind: 3 application, 4 service account
    client       bigint not null,           -- its number
    scopes       text    not null,
    issued_at    bigint not null,           -- log position: barred by a later revocation
    expires_at   bigint not null,
    barred       boolean not null           -- a revocation of one session barred this very token
);

-- The one current token of each session (`sst_…`). Kept when the session ends: it still opens the story of its end.
create table session_token (
    session     bigint primary key,
    secret_hash bytea    not null,
    issued_at   bigint not null,
    expires_at  bigint not null
);

-- People and clients behind sessions. Events hold the number only; subject, name and email can be erased.
create table principal (
    number         bigint primary key,
    organization   bigint not null,
    issuer         text    not null,
    subject_digest bytea    not null,       -- HMAC-SHA-256 under the secret key
    subject        text,
    name           text,
    email          text,
    unique (organization, issuer, subject_digest)
);

-- The gateway's side of an MCP session: the id we gave the client (hashed), and what we need to speak to the server
-- behind (its session id and the client's `initialize`), sealed with the secret key.
create table mcp_session (
    session bigint primary key,
    id_hash bytea not null,
    sealed  bytea not null
);
