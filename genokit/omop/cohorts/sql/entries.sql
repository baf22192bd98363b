-- Each day on which a person has a record that may be a cohort entry: its end, the end of the record before it, the first
-- record's day, sex and birth of the person, and the observation period of the day.
with record as (
{records}
),
day as (
    select person_id, start_date, max(greatest(end_date, start_date)) as end_date, count(*) as records
    from record
    group by person_id, start_date
),
ordered as (
    select
        person_id, start_date, end_date, records,
        max(end_date) over (
            partition by person_id order by start_date rows between unbounded preceding and 1 preceding
        ) as ended_before,
        min(start_date) over (partition by person_id) as first_date
    from day
)
select
    d.person_id, d.start_date, d.end_date, d.records, d.ended_before, d.first_date,
    p.gender_concept_id, p.year_of_birth, p.month_of_birth, p.day_of_birth,
    o.observation_period_start_date, o.observation_period_end_date
from ordered as d
join person as p on p.person_id = d.person_id
left join observation_period as o
    on o.person_id = d.person_id
    and d.start_date between o.observation_period_start_date and o.observation_period_end_date
