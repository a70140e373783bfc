-- How the gateway authenticates at upstreams, and what a token was asked for.

alter table application add column upstream_credential text;    -- JSON: all of it but the secret

-- The secrets that belong to it, sealed with the secret key. Not from the log.
create table upstream_secret (
    application bigint primary key,
    sealed      bytea not null
);

alter table access_token add column audience uuid;              -- id of the application whose gateway alone it opens
