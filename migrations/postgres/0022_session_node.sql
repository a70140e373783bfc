-- Where several processes work on one log: the one that a session lives on, where it cannot go on anywhere else.

alter table session add column node bigint;             -- its number

-- How many requests and streams a node has cut off for a revocation that another carries out, until that has asked. Disposable.
create table cut_off (
    revocation bigint not null,
    node       bigint not null,
    streams    bigint not null,
    noted_at   bigint not null,
    primary key (revocation, node)
);
