-- Who was connected then: what is asked about a moment in the past, at the cost of what was open at that moment.

-- How sessions stood just before those of their events from which on their status or stage is derived otherwise. Disposable,
-- with the mark `earlier`: the next start makes it again.
create table session_earlier (
    position         bigint primary key,    -- of the event that ended it
    session          bigint  not null,
    last_active_at   bigint  not null,
    token_expires_at bigint  not null,
    phase            text
);
create index session_earlier_of_session on session_earlier (session, position);

-- Sessions by application, in blocks of 64 numbers, of 64 blocks, and so on: how many there are, and when the last of them
-- ended, so that whoever looks for those that were open at a position passes over blocks in which all had ended. Disposable.
create table session_block (
    application bigint  not null,
    level       bigint  not null,           -- 1: of numbers; 2: of blocks of level 1; …
    block       bigint  not null,           -- the number without its last six bits for each level
    sessions    bigint  not null,
    last_ended  bigint  not null,           -- the greatest position of an end; 0: of none
    primary key (application, level, block)
);
insert into session_block (application, level, block, sessions, last_ended)
select application, level, number >> (6 * level), count(*), max(case when state = 0 then head else 0 end)
from session cross join generate_series(1, 4) as level
group by application, level, number >> (6 * level);

-- With when each of them ended: what is looked for in a block costs the index alone.
drop index session_ended;
create index session_ended on session (application, number, head) where state = 0;

-- Some activity of each session, every sixteenth event of it: from there it is not far to any other.
create index event_milestone on event (stream_number, position)
    where type = 'activity_recorded' and version % 16 = 0;
