-- The persons observed, and when; made once. Persons are numbered by their rows here, and groups of persons are numbered,
-- too, because counts of persons are looked up by number. Persons who are not in `person` are in an unknown group.
create temp table if not exists observed_group as
select row_number() over () - 1 as group_id, *
from (
    select distinct true as known, gender_concept_id, year_of_birth from person
    union all
    select false, null, null
);

create temp table if not exists observed_person as
select seen.*, known.group_id
from (
    select
        person_id,
        min(observation_period_start_date) as start_date,
        arg_min(observation_period_end_date, observation_period_start_date) as end_date,
        count(observation_period_start_date) as periods
    from observation_period
    group by person_id
) as seen
left join person using (person_id)
join observed_group as known
    on known.known = (person.person_id is not null)
    and known.gender_concept_id is not distinct from person.gender_concept_id
    and known.year_of_birth is not distinct from person.year_of_birth;

create temp table if not exists observed as
select
    person.rowid as number,
    person.group_id,
    person.periods > 1 as again,
    person_id,
    period.observation_period_start_date as start_date,
    period.observation_period_end_date as end_date
from observation_period as period
join observed_person as person using (person_id);
