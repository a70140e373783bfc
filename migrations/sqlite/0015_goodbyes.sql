-- What is kept to speak to the upstream of an MCP session goes (`sealed` is empty) once the session has ended and the upstream
-- has been told so. What is still kept of a session that has ended is a goodbye that is yet to be said.

-- What ended under an earlier release is left alone: those upstreams have had their time.
update mcp_session set sealed = x'' where session in (select number from session where state = 0);
create index mcp_session_kept on mcp_session (session) where sealed <> x'';
