-- What sessions of media streams and of workloads need, beyond what every session has.

alter table session add column resource text;           -- what it is connected to within its application
alter table session add column phase text;              -- how far the work behind it has come
alter table session add column ended_outcome text;      -- what came of that work, where it ended by itself
alter table session add column message text;            -- and the last words of whoever ran it
alter table session add column throughput text;         -- JSON: what readings of its counter have come to
alter table session_activity add column throughput text;

-- Ended sessions of a resource, and what was sent in them in all.
create index session_ended_by_resource on session (application, resource, number, bytes_out)
    where state = 0 and resource is not null;

-- That whoever ran the work of a session knows that it has ended: the machine is free. Not from the log, which says when
-- the session ended.
create table confirmation (
    session bigint primary key,
    at      bigint not null,
    message text
);
