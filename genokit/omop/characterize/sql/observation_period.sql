-- When persons are observed, and for how long; each person's first period first.
create or replace temp table firsts as
select
    known,
    gender_concept_id as gender_id,
    year(start_date) - year_of_birth as age,
    date_diff('day', start_date, end_date) as days,
    periods
from observed_person
join observed_group using (group_id);

insert into counted
select 101, age, null, null, null, count(*) from firsts where known group by all
union all
select 102, gender_id, age, null, null, count(*) from firsts where known group by all
union all
select 108, floor(days / 30)::integer, null, null, null, count(*) from firsts where known group by all
union all
select 113, periods, null, null, null, count(*) from firsts group by all;

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

-- The years and months that a period touches (116, 117) and fills (109, 110), and those in which it begins (111) and
-- ends (112), as numbers from `low` to `high`; months are counted from the year 0. Equal periods are one row.
create or replace temp table spans as
with period as (
    select
        case when again then number end as number,
        group_id,
        year(start_date) as year_1,
        year(end_date) as year_2,
        year_1 * 12 + month(start_date) - 1 as month_1,
        year_2 * 12 + month(end_date) - 1 as month_2,
        year_1 + (dayofyear(start_date) > 1)::integer as whole_year_1,
        year_2 - (month(end_date) < 12 or day(end_date) < 31)::integer as whole_year_2,
        month_1 + (day(start_date) > 1)::integer as whole_month_1,
        month_2 - (end_date < last_day(end_date))::integer as whole_month_2
    from observed
),
alike as (
    select
        number, group_id, year_1, year_2, month_1, month_2, whole_year_1, whole_year_2, whole_month_1, whole_month_2,
        grouping(year_1) as no_year, grouping(month_1) as no_month, grouping(whole_year_1) as no_whole_year, grouping(whole_month_1) as no_whole_month,
        count(*) as n
    from period
    group by grouping sets (
        (number, group_id, year_1, year_2),
        (number, month_1, month_2),
        (number, whole_year_1, whole_year_2),
        (number, whole_month_1, whole_month_2)
    )
),
span as (
    select 116 as analysis_id, number, group_id, year_1 as low, year_2 as high, n from alike where no_year = 0
    union all
    select 117, number, null, month_1, month_2, n from alike where no_month = 0
    union all
    select 111, number, null, month_1, month_1, n from alike where no_month = 0
    union all
    select 112, number, null, month_2, month_2, n from alike where no_month = 0
    union all
    select 109, number, null, whole_year_1, whole_year_2, n from alike where no_whole_year = 0
    union all
    select 110, number, null, whole_month_1, whole_month_2, n from alike where no_whole_month = 0
)
select analysis_id, group_id, low, high, n from span where number is null and low <= high
union all
-- Periods of a person that share a year or month are merged.
select analysis_id, group_id, min(low), max(high), 1
from (
    select *, sum(apart::integer) over (partition by analysis_id, number order by low, high) as island
    from (
        select
            *,
            coalesce(low > max(high) over (
                partition by analysis_id, number order by low, high rows between unbounded preceding and 1 preceding
            ), true) as apart
        from span
        where number is not null and low <= high
    )
)
group by analysis_id, group_id, number, island;

-- The persons present: those who came by then, less those who left.
insert into counted
with step as (
    select analysis_id, group_id, low as moment, n from spans
    union all
    select analysis_id, group_id, high + 1, -n from spans
),
steps as (select analysis_id, group_id, moment, sum(n) as n from step group by all),
moments as (
    select analysis_id, group_id, unnest(range(min(moment), max(moment))) as moment
    from steps
    group by analysis_id, group_id
),
there as (
    select
        moments.*,
        sum(steps.n) over (
            partition by moments.analysis_id, moments.group_id order by moments.moment
        ) as n
    from moments
    left join steps
        on steps.analysis_id = moments.analysis_id
        and steps.moment = moments.moment
        and steps.group_id is not distinct from moments.group_id
),
begun as (select distinct low // 12 as year, low as month from spans where analysis_id = 111)
-- Achilles reports the years and months in which some period begins, and all years between these.
select analysis_id, moment, null, null, null, n
from there
where analysis_id = 109 and n > 0 and moment between (select min(year) from begun) and (select max(year) from begun)
union all
select analysis_id, moment // 12 * 100 + moment % 12 + 1, null, null, null, n
from there
where n > 0 and (analysis_id in (111, 112, 117) or analysis_id = 110 and moment in (select month from begun))
union all
select
    there.analysis_id,
    there.moment,
    person.gender_concept_id,
    floor((there.moment - person.year_of_birth) / 10)::integer,
    null,
    sum(there.n)
from there
join observed_group as person using (group_id)
where there.analysis_id = 116 and there.n > 0 and person.known and there.moment in (select year from begun)
group by all;

drop table spans;
