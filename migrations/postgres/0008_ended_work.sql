-- Ended sessions of work are listed by what they are, however many others their application has had. The last columns make
-- counting by how it ended cost the index alone.
create index session_ended_work on session (application, kind, number, ended_outcome, principal, connected_at, ended_at)
    where state = 0 and kind in ('webui', 'task');
create index session_ended_work_by_activity on session (application, kind, last_active_at, number)
    where state = 0 and kind in ('webui', 'task');
