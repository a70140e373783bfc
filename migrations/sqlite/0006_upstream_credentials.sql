-- How the gateway authenticates at upstreams, and what a token was asked for.

alter table application add column upstream_credential text;    -- JSON: all of it but the secret

-- The secrets that belong to it, sealed with the secret key. Not from the log.
create table upstream_secret (
    application integer primary key,
    sealed      blob not null
) strict;

alter table access_token add column audience blob;              -- id of the application whose gateway alone it opens
