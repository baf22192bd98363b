-- When persons are observed, and for how long.
create or replace temp table firsts as
select
    seen.person_id,
    person.gender_concept_id as gender_id,
    year(seen.start_date) - person.year_of_birth as age,
    date_diff('day', seen.start_date, seen.end_date) as days,
    seen.periods,
    person.person_id is not null as known
from (
    select
        person_id,
        min(observation_period_start_date) as start_date,
        arg_min(observation_period_end_date, observation_period_start_date) as end_date,
        count(observation_period_start_date) as periods
    from observation_period
    group by person_id
) as seen
left join person using (person_id);

insert into counted
select 101, age, null, null, null, count(*) from firsts where known group by all
union all
select 102, gender_id, age, null, null, count(*) from firsts where known group by all
union all
select 108, floor(days / 30)::integer, null, null, null, count(*) from firsts where known group by all
union all
select 113, periods, null, null, null, count(*) from firsts group by all
union all
select
    111,
    year(observation_period_start_date) * 100 + month(observation_period_start_date),
    null, null, null,
    count(distinct person_id)
from observation_period
group by all
union all
select
    112,
    year(observation_period_end_date) * 100 + month(observation_period_end_date),
    null, null, null,
    count(distinct person_id)
from observation_period
group by all;

insert into spread
select 103, null, null, age, count(*) from firsts where known group by all
union all
select 104, gender_id, null, age, count(*) from firsts where known group by all
union all
select 105, null, null, days, count(*) from firsts group by all
union all
select 106, gender_id, null, days, count(*) from firsts where known group by all
union all
select 107, floor(age / 10)::integer, null, days, count(*) from firsts where known group by all;

drop table firsts;

-- The years and months that a period touches (116, 117) and fills (109, 110), as numbers from `low` to `high`; months
-- are counted from the year 0. A person whose periods share a year or month is there once.
create or replace temp table spans as
with period as (
    select
        person_id,
        year(observation_period_start_date) as year_1,
        year(observation_period_end_date) as year_2,
        year(observation_period_start_date) * 12 + month(observation_period_start_date) - 1 as month_1,
        year(observation_period_end_date) * 12 + month(observation_period_end_date) - 1 as month_2,
        (dayofyear(observation_period_start_date) > 1)::integer as late_year,
        (observation_period_end_date < make_date(year(observation_period_end_date), 12, 31))::integer as short_year,
        (day(observation_period_start_date) > 1)::integer as late_month,
        (observation_period_end_date < last_day(observation_period_end_date))::integer as short_month
    from observation_period
),
span as (
    select 116 as analysis_id, person_id, year_1 as low, year_2 as high from period
    union all
    select 117, person_id, month_1, month_2 from period
    union all
    select 109, person_id, year_1 + late_year, year_2 - short_year from period
    union all
    select 110, person_id, month_1 + late_month, month_2 - short_month from period
),
many as (select person_id from observation_period group by person_id having count(*) > 1)
select analysis_id, person_id, low, high from span anti join many using (person_id) where low <= high
union all
select analysis_id, person_id, min(low), max(high)
from (
    select *, sum(apart::integer) over (partition by analysis_id, person_id order by low, high) as island
    from (
        select
            span.*,
            coalesce(low > max(high) over (
                partition by analysis_id, person_id order by low, high rows between unbounded preceding and 1 preceding
            ), true) as apart
        from span
        semi join many using (person_id)
        where low <= high
    )
)
group by analysis_id, person_id, island;

-- Who is there: who has come by then, less who has gone.
insert into counted
with step as (
    select spans.analysis_id, low as moment, person.gender_concept_id as gender_id, person.year_of_birth, 1 as n
    from spans
    left join person on person.person_id = spans.person_id and spans.analysis_id = 116
    where spans.analysis_id <> 116 or person.person_id is not null
    union all
    select spans.analysis_id, high + 1, person.gender_concept_id, person.year_of_birth, -1
    from spans
    left join person on person.person_id = spans.person_id and spans.analysis_id = 116
    where spans.analysis_id <> 116 or person.person_id is not null
),
steps as (select analysis_id, gender_id, year_of_birth, moment, sum(n) as n from step group by all),
born as (
    select analysis_id, gender_id, year_of_birth, unnest(range(min(moment), max(moment))) as moment
    from steps
    group by analysis_id, gender_id, year_of_birth
),
there as (
    select
        born.*,
        sum(steps.n) over (
            partition by born.analysis_id, born.gender_id, born.year_of_birth order by born.moment
        ) as n
    from born
    left join steps
        on steps.analysis_id = born.analysis_id
        and steps.moment = born.moment
        and steps.gender_id is not distinct from born.gender_id
        and steps.year_of_birth is not distinct from born.year_of_birth
),
begun as (
    select distinct
        year(observation_period_start_date) as year,
        year(observation_period_start_date) * 12 + month(observation_period_start_date) - 1 as month
    from observation_period
)
-- Achilles asks of the years and months in which some period begins, and of all years between these.
select analysis_id, moment, null, null, null, n
from there
where analysis_id = 109 and n > 0 and moment between (select min(year) from begun) and (select max(year) from begun)
union all
select analysis_id, (moment // 12) * 100 + moment % 12 + 1, null, null, null, n
from there
where n > 0 and (analysis_id = 117 or analysis_id = 110 and moment in (select month from begun))
union all
select analysis_id, moment, gender_id, floor((moment - year_of_birth) / 10)::integer, null, sum(n)
from there
where analysis_id = 116 and n > 0 and moment in (select year from begun)
group by all;

drop table spans;
