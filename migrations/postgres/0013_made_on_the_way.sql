-- Whether an application was made on the way, because another system named it. The log says so from now on; of those that
-- were made before it does not, and they stay what they were taken for.

alter table application add column on_the_way boolean not null default false;
