-- What terminal sessions need: what machines are logged into with, sealed with the secret key; and statistics of a period
-- at the cost of the period. Not from the log, the first of the two.

create table machine_secret (
    id     uuid primary key,                -- the machine's
    sealed bytea not null
);

create index session_ended_terminals on session (organization, ended_at, connected_at, principal, resource)
    where state = 0 and kind = 'terminal';
