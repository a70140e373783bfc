-- What only a store needs that several processes write to.

-- Where the log and its numbers stand: read and written by whoever has the turn, so that positions need no sequence. Made
-- again from the log by `rebuild`, but for `commit_number`, which goes on.
create table log_head (
    only_one        bigint primary key check (only_one = 1),
    commit_number   bigint not null,
    position        bigint not null,
    recorded_at     bigint not null,
    commit_hash     bytea  not null,
    last_session    bigint not null,
    last_session_id uuid   not null,
    last_revocation bigint not null,
    last_principal  bigint not null
) with (fillfactor = 10);                   -- written with each commit, in its one page
insert into log_head values
    (1, 0, 0, 0, decode(repeat('00', 32), 'hex'), 0, '00000000-0000-0000-0000-000000000000', 0, 0);

-- Commits, those without events too, with what each changes in memory: for processes that follow, and for the one that wrote
-- it and did not hear what came of it. Forgotten once nobody needs them.
create table log_commit (
    number          bigint primary key,
    id              uuid   not null unique, -- made by whoever wrote it
    position        bigint not null,        -- where the log stood after it, as all columns of log_head
    recorded_at     bigint not null,
    commit_hash     bytea  not null,
    last_session    bigint not null,
    last_session_id uuid   not null,
    last_revocation bigint not null,
    last_principal  bigint not null,
    lifecycle       bigint,                 -- position of its last event that is no activity
    committed_at    bigint not null,
    changes         bytea  not null         -- JSON, as a zstd frame
);
alter table log_commit alter column changes set storage external;   -- what is compressed once is not compressed again
