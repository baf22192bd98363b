-- Age of persons when first observed; length, number, begin and end of observation periods.
with period as (
    select
        seen.person_id,
        person.gender_concept_id as gender_id,
        case when person.person_id is not null then 1 else 0 end as known,
        year(seen.observation_period_start_date) - person.year_of_birth as age,
        cast(floor((year(seen.observation_period_start_date) - person.year_of_birth) / 1e1) as bigint) as decile,
        date_diff('day', seen.observation_period_start_date, seen.observation_period_end_date) as days,
        year(seen.observation_period_start_date) * 100 + month(seen.observation_period_start_date) as begins,
        year(seen.observation_period_end_date) * 100 + month(seen.observation_period_end_date) as ends,
        row_number() over (
            partition by seen.person_id
            order by seen.observation_period_start_date, seen.observation_period_end_date
        ) as nth,
        count(*) over (partition by seen.person_id) as periods
    from observation_period as seen
    left join person on person.person_id = seen.person_id
),
cell as (
    select
        case
            when grouping(begins) = 0 then 111
            when grouping(ends) = 0 then 112
            when grouping(periods) = 0 then 113
            when grouping(length) = 0 then 108
            when grouping(decile) = 0 then 107
            when grouping(gender_id, days) = 0 then 106
            when grouping(days) = 0 then 105
            when grouping(gender_id) = 0 then 102
            else 101
        end as analysis_id,
        begins, ends, periods, length, decile, gender_id, days, age,
        count(distinct person_id) as persons,
        count(case when nth = 1 then 1 end) as firsts,
        count(case when nth = 1 and known = 1 then 1 end) as known_firsts
    from (select *, cast(floor(days / 3e1) as bigint) as length from period) as period
    group by grouping sets (
        (begins), (ends), (periods), (length), (decile, days), (gender_id, days), (days), (gender_id, age), (age)
    )
)
-- Persons by age (101, 102) are also a distribution of ages (103, 104).
select
    cell.analysis_id + more.two as analysis_id,
    case
        when cell.analysis_id = 101 and more.two = 0 then age
        else coalesce(begins, ends, periods, length, decile, gender_id)
    end as stratum_1,
    case when cell.analysis_id = 102 and more.two = 0 then age end as stratum_2,
    case when more.two = 2 then age else days end as value,
    case cell.analysis_id when 111 then persons when 112 then persons when 113 then firsts when 105 then firsts
        else known_firsts end as n
from cell
join (values 0, 2) as more (two) on more.two = 0 or cell.analysis_id in (101, 102)
