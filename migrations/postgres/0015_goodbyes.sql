-- What is kept to speak to the upstream of an MCP session goes (`sealed` is empty) once the session has ended and the upstream
-- has been told so. What is still kept of a session that has ended is a goodbye that is yet to be said.
create index mcp_session_kept on mcp_session (session) where sealed <> ''::bytea;
