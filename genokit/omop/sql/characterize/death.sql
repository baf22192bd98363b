-- Deaths while observed.
create or replace temp table deaths as
select death.person_id, death.cause_concept_id, death.death_type_concept_id, death.death_date
from death
join observation_period as seen
    on seen.person_id = death.person_id
    and death.death_date between seen.observation_period_start_date and seen.observation_period_end_date;

insert into counted
select 500, cause_concept_id, null, null, null, count(distinct person_id) from deaths group by all
union all
select 501, cause_concept_id, null, null, null, count(*) from deaths group by all
union all
select 502, year(death_date) * 100 + month(death_date), null, null, null, count(distinct person_id)
from deaths
group by all
union all
select
    504,
    year(deaths.death_date),
    person.gender_concept_id,
    floor((year(deaths.death_date) - person.year_of_birth) / 10)::integer,
    null,
    count(distinct deaths.person_id)
from deaths
join person using (person_id)
group by all
union all
select 505, death_type_concept_id, null, null, null, count(*) from deaths group by all;

insert into spread
select 506, person.gender_concept_id, null, death.year - person.year_of_birth, count(*)
from (select person_id, min(year(death_date)) as year from deaths group by person_id) as death
join person using (person_id)
group by all;

drop table deaths;
