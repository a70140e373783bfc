-- What sessions say beside their events. Nothing here decides anything, nothing is made again from the log, and all of it is
-- forgotten when it is old. Losing it loses log lines and recordings, and nothing else.

-- Entries of one journal, many in a row: compressed, and in the order of their positions. Rows are written once, and
-- deleted whole. `number` is the order in which they were written: the oldest go first.
create table block (
    number         bigint primary key,
    journal        bigint not null,         -- 1 lines, 2 recording
    session        bigint not null,
    first_position bigint not null,         -- of its first entry: positions count from 1 in each journal, without gaps
    count          bigint not null,         -- of its entries
    low_time       bigint not null,         -- of its first entry; microseconds since 1970, UTC
    high_time      bigint not null,         -- of its last entry; no entry after it has an earlier one
    recorded_at    bigint not null,         -- when it was written, in milliseconds; never falls along the numbers
    marks          bigint not null,         -- which levels, or codes of chunks, are in it: a bit each
    payload        bytea  not null
);
create unique index block_by_position on block (journal, session, first_position);
create index block_by_time on block (journal, session, high_time);

-- How far a journal went of which blocks were forgotten: positions go on from there, and times do not fall. Not
-- disposable: without it a journal that was forgotten whole would begin again at 1, and nobody who follows it would
-- notice. A row of a journal that still has blocks may lag behind them.
create table tail (
    journal       bigint not null,
    session       bigint not null,
    last_position bigint not null,
    high_time     bigint not null,
    primary key (journal, session)
);
