-- Who was connected then: what is asked about a moment in the past, at the cost of what was open at that moment.

-- How sessions stood just before those of their events from which on their status or stage is derived otherwise. Disposable,
-- with the mark `earlier`: the next start makes it again.
create table session_earlier (
    position         integer primary key,   -- of the event that ended it
    session          integer not null,
    last_active_at   integer not null,
    token_expires_at integer not null,
    phase            text
) strict;
create index session_earlier_of_session on session_earlier (session, position);

-- Sessions by application, in blocks of 64 numbers, of 64 blocks, and so on: how many there are, and when the last of them
-- ended, so that whoever looks for those that were open at a position passes over blocks in which all had ended. Disposable.
create table session_block (
    application integer not null,
    level       integer not null,           -- 1: of numbers; 2: of blocks of level 1; …
    block       integer not null,           -- the number without its last six bits for each level
    sessions    integer not null,
    last_ended  integer not null,           -- the greatest position of an end; 0: of none
    primary key (application, level, block)
) strict, without rowid;
insert into session_block (application, level, block, sessions, last_ended)
select application, level.value, number >> (6 * level.value), count(*), max(iif(state = 0, head, 0))
from session cross join json_each('[1,2,3,4]') level
group by application, level.value, number >> (6 * level.value);

-- With when each of them ended: what is looked for in a block costs the index alone.
drop index session_ended;
create index session_ended on session (application, number, head) where state = 0;

-- Some activity of each session, every sixteenth event of it: from there it is not far to any other.
create index event_milestone on event (stream_number, position)
    where type = 'activity_recorded' and version % 16 = 0;
