-- What a restore and another secret key leave behind.

-- The position of the last restore from a backup that kept no credentials: what was issued before opens nothing.
alter table organization add column restored_at bigint not null default 0;

-- The public id of a principal is made from the digest that it was met under. After another secret key has made another
-- digest, it stands here. Not from the log.
alter table principal add column kept_id uuid;
