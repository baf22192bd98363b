-- What the CDM calls its source.
insert into counted
select 0, (select min(cdm_source_name) from cdm_source), 'genokit', null, null, count(distinct person_id) from person;
