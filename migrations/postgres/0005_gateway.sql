-- What the gateway needs for clients that have no session id, and that never say goodbye.

alter table session_detail add column anchor text;     -- keyed digest (hex) of what such a client is known by
alter table session add column unused_after bigint;   -- seconds; goes stale after these before its second request
