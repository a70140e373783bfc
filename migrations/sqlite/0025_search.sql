-- The words by which sessions are found, open and ended ones: those of a session's name, of its hostname and of its client's
-- name, in lower case. Disposable, with the mark `words`: the next start makes them again.
create table session_word (
    application integer not null,
    word        text    not null,
    session     integer not null,
    primary key (application, word, session)
) strict, without rowid;
create index session_word_of_session on session_word (session);
