-- By what the secret key is known again: a keyed digest of nothing. Without the right key sealed secrets do not open and
-- people are not recognised, so the service does not start. Not from the log; whoever throws it away has it made again from
-- a key that opens what is sealed.
create table key_check (
    only_one bigint primary key check (only_one = 1),
    digest   bytea not null
);
