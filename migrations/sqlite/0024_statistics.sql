-- Statistics: what is counted of the log, a little behind it, by hours. Whoever throws all four tables away has it counted again,
-- from what is kept of the log.

-- What was counted of a group of sessions in an hour. Only hours in which something happened to one of them have a row.
create table statistic_cell (
    organization integer not null,
    application  integer not null,           -- 0: all of the organization's
    dimension    integer not null,           -- 0 all, 1 kind, 2 client, 3 host, 4 principal
    hour         integer not null,           -- since 1970, UTC
    value        integer not null,           -- of the dimension: of a kind its place, or the number of a label or principal
    open         integer not null,           -- how many were open when the hour began
    body         text    not null,         -- JSON: four quarters of an hour
    primary key (organization, application, dimension, hour, value)
) strict, without rowid;
create index statistic_cell_of_group on statistic_cell (organization, application, dimension, value, hour);

-- What clients and hosts are called. Personal: the text goes with the last session that has it.
create table statistic_label (
    number       integer primary key,
    organization integer not null,
    dimension    integer not null,
    text         text
) strict;
create unique index statistic_label_called on statistic_label (organization, dimension, text) where text is not null;

-- The labels that kept sessions were counted under, which stay the same until their end.
create table statistic_session (
    session integer primary key,
    client  integer not null,                -- 0: none
    host    integer not null,
    erased  integer not null                 -- 1: it says no more what its labels are called
) strict;
create index statistic_session_by_client on statistic_session (client) where client > 0 and erased = 0;
create index statistic_session_by_host on statistic_session (host) where host > 0 and erased = 0;

-- How far the log was counted, and after which position all of it was there when it was.
create table statistic_mark (
    only_one    integer primary key,
    position    integer not null,
    exact_after integer not null
) strict;
