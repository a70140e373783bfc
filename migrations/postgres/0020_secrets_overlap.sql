-- The secret before a rotation is good beside the new one for as long as whoever rotated it wanted: nobody can change a
-- secret in two places at once. Not from the log.

-- SHA-256 of the one before, and until when it is good; null where it is good no more.
alter table client_secret add column before bytea;
alter table client_secret add column before_until bigint;

-- The same of API keys; until when it is good is in the key's own stream.
alter table api_key_secret add column before bytea;
