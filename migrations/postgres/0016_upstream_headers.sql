-- Which headers pass an application's gateway beside those that pass every gateway.

alter table application add column upstream_headers text;    -- JSON: names, in either direction
