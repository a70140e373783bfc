-- Statistics: what is counted of the log, a little behind it, by hours. Whoever throws all four tables away has it counted again,
-- from what is kept of the log.

-- What was counted of a group of sessions in an hour. Only hours in which something happened to one of them have a row.
create table statistic_cell (
    organization bigint not null,
    application  bigint not null,           -- 0: all of the organization's
    dimension    bigint not null,           -- 0 all, 1 kind, 2 client, 3 host, 4 principal
    hour         bigint not null,           -- since 1970, UTC
    value        bigint not null,           -- of the dimension: of a kind its place, or the number of a label or principal
    open         bigint not null,           -- how many were open when the hour began
    body         text    not null,         -- JSON: four quarters of an hour
    primary key (organization, application, dimension, hour, value)
);
create index statistic_cell_of_group on statistic_cell (organization, application, dimension, value, hour);

-- What clients and hosts are called. Personal: the text goes with the last session that has it.
create table statistic_label (
    number       bigint primary key,
    organization bigint not null,
    dimension    bigint not null,
    text         text
);
create unique index statistic_label_called on statistic_label (organization, dimension, text) where text is not null;

-- The labels that kept sessions were counted under, which stay the same until their end.
create table statistic_session (
    session bigint primary key,
    client  bigint not null,                -- 0: none
    host    bigint not null,
    erased  bigint not null                 -- 1: it says no more what its labels are called
);
create index statistic_session_by_client on statistic_session (client) where client > 0 and erased = 0;
create index statistic_session_by_host on statistic_session (host) where host > 0 and erased = 0;

-- How far the log was counted, and after which position all of it was there when it was.
create table statistic_mark (
    only_one    bigint primary key,
    position    bigint not null,
    exact_after bigint not null
);
