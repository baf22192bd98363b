-- Persons with records of a table, in blocks of persons: what is counted in one adds to the others. From months to
-- years to a life, each step reads what the one before has left.
create or replace temp table months as
select
    event.person_id,
    the_concept as concept_id,
    (year(the_date) * 100 + month(the_date))::integer as month,
    count(*)::integer as n
from the_table as event
join observation_period as seen
    on seen.person_id = event.person_id
    and the_date between seen.observation_period_start_date and seen.observation_period_end_date
where abs(event.person_id) % the_blocks = the_block
group by all;

insert into counted
select the_number + 2, concept_id, month, null, null, count(*) from months group by all;

create or replace temp table years as
select person_id, concept_id, (month // 100)::integer as year, sum(n)::integer as n from months group by all;

drop table months;

insert into counted
select
    the_number + 4,
    years.concept_id,
    years.year,
    person.gender_concept_id,
    floor((years.year - person.year_of_birth) / 10)::integer,
    count(*)
from years
join person using (person_id)
group by all;

create or replace temp table lives as
select person_id, concept_id, min(year) as first, sum(n)::integer as n from years group by all;

drop table years;

insert into spread
select the_number + 6, lives.concept_id, person.gender_concept_id, lives.first - person.year_of_birth, count(*)
from lives
join person using (person_id)
group by all
union all
select the_number + 91, concept_id, null, n, count(*) from lives group by all
union all
select the_number + 3, null, null, kinds, count(*)
from (select person_id, count(concept_id) as kinds from lives group by person_id)
group by all;

drop table lives;
