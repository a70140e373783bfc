-- What does not come from the log: secrets (hashes of ours, other systems' sealed) and people. `rebuild` leaves these
-- alone; losing them loses credentials, not history.

-- Secrets of OAuth clients, as SHA-256.
create table client_secret (
    client_id   text primary key,
    secret_hash blob not null
) strict, without rowid;

-- Access tokens (`sat_…`). Pruned after they expire.
create table access_token (
    id           blob primary key,          -- UUID, part of the token
    secret_hash  blob    not null,          -- SHA-256
    organization integer not null,
    client_kind  integer not null,          -- actor kind: 3 application, 4 service account
    client       integer not null,          -- its number
    scopes       text    not null,
    issued_at    integer not null,          -- log position: barred by a later revocation
    expires_at   integer not null,
    barred       integer not null           -- 1: a revocation of one session barred this very token
) strict, without rowid;

-- The one current token of each session (`sst_…`). Kept when the session ends: it still opens the story of its end.
create table session_token (
    session     integer primary key,
    secret_hash blob    not null,
    issued_at   integer not null,
    expires_at  integer not null
) strict;

-- People and clients behind sessions. Events hold the number only; subject, name and email can be erased.
create table principal (
    number         integer primary key,
    organization   integer not null,
    issuer         text    not null,
    subject_digest blob    not null,        -- HMAC-SHA-256 under the secret key
    subject        text,
    name           text,
    email          text,
    unique (organization, issuer, subject_digest)
) strict;

-- The gateway's side of an MCP session: the id we gave the client (hashed), and what we need to speak to the server
-- behind (its session id and the client's `initialize`), sealed with the secret key.
create table mcp_session (
    session integer primary key,
    id_hash blob not null,
    sealed  blob not null
) strict;
