-- The second file: what sessions say beside their events. Nothing here decides anything, nothing is made again from the
-- log, and all of it is forgotten when it is old. Losing the file loses log lines and recordings, and nothing else.

-- Entries of one journal, many in a row: compressed, and in the order of their positions. Rows are written once, and
-- deleted whole. `number` is the order in which they were written: the oldest go first.
create table block (
    number         integer primary key,
    journal        integer not null,        -- 1 lines, 2 recording
    session        integer not null,
    first_position integer not null,        -- of its first entry: positions count from 1 in each journal, without gaps
    count          integer not null,        -- of its entries
    low_time       integer not null,        -- of its first entry; microseconds since 1970, UTC
    high_time      integer not null,        -- of its last entry; no entry after it has an earlier one
    recorded_at    integer not null,        -- when it was written, in milliseconds; never falls along the numbers
    marks          integer not null,        -- which levels, or codes of chunks, are in it: a bit each
    payload        blob    not null         -- last, so that whoever looks at the rest alone does not read it
) strict;
create unique index block_by_position on block (journal, session, first_position);
create index block_by_time on block (journal, session, high_time);

-- How far a journal went of which blocks were forgotten: positions go on from there, and times do not fall. Not
-- disposable: without it a journal that was forgotten whole would begin again at 1, and nobody who follows it would
-- notice. A row of a journal that still has blocks may lag behind them.
create table tail (
    journal       integer not null,
    session       integer not null,
    last_position integer not null,
    high_time     integer not null,
    primary key (journal, session)
) strict, without rowid;
