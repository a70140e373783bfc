-- The words by which principals are found: those of a name and of an e-mail address, in lower case. Made from the principal's
-- row whenever that is written, and gone with what is erased. May be thrown away with the mark `people`: the next start makes
-- it again.
create table principal_word (
    organization bigint not null,
    word         text collate "C" not null,
    principal    bigint not null,
    primary key (organization, word, principal)
);
create index principal_word_of_principal on principal_word (principal);

-- A principal is also found by all that its issuer calls it, and by its address as a whole.
create index principal_by_subject on principal (organization, subject) where subject is not null;
-- Of an address that is none there is no telling how long it is, and no entry of an index can be longer than a third of a page.
create index principal_by_email on principal (organization, lower(email collate "C")) where octet_length(email) <= 1000;
