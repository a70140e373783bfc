-- Where several processes work on one log: the one that a session lives on, where it cannot go on anywhere else.

alter table session add column node integer;            -- its number
