insert into counted
select 301, specialty_concept_id, null, null, null, count(distinct provider_id) from provider group by all;
