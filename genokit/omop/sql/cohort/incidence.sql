-- Who is at risk on which days, and who has the event, by interval, age and sex; each also taken together as 'all'.
-- Runs here, over tables of this program: observed (days on which someone may be at risk), event (its day, and the day
-- from which its person is at risk again), part (intervals) and age (bands of completed years).
with ordered as (
    select
        person_id, day,
        max(again) over (
            partition by person_id order by day, again rows between unbounded preceding and 1 preceding
        ) as free
    from event
),
span as (
    select person_id, coalesce(free, date '0001-01-01') as first_day, day as last_day, true as has_event
    from ordered
    where free is null or free <= day
    union all
    select person_id, max(again), date '9999-12-31', false
    from event
    group by person_id
    union all
    select distinct person_id, date '0001-01-01', date '9999-12-31', false
    from observed anti join event using (person_id)
),
cell as (
    select
        o.person_id, o.sex, a.age_group, p.interval_start,
        greatest(o.first_day, s.first_day, p.interval_start, cast(o.birth + to_years(a.low) as date)) as first_day,
        least(o.last_day, s.last_day, p.interval_end, cast(o.birth + to_years(a.high + 1) as date) - 1) as last_day,
        case when s.has_event then s.last_day end as event_day
    from observed as o
    join span as s
        on s.person_id = o.person_id and s.first_day <= o.last_day and s.last_day >= o.first_day
    join part as p
        on p.interval_start <= least(o.last_day, s.last_day) and p.interval_end >= greatest(o.first_day, s.first_day)
    join age as a
        on cast(o.birth + to_years(a.low) as date) <= least(o.last_day, s.last_day, p.interval_end)
        and cast(o.birth + to_years(a.high + 1) as date) > greatest(o.first_day, s.first_day, p.interval_start)
)
select
    interval_start,
    coalesce(age_group, 'all') as age_group,
    coalesce(sex, 'all') as sex,
    cast(count(distinct person_id) as bigint) as persons,
    cast(sum(last_day - first_day + 1) as bigint) as person_days,
    count(*) filter (event_day = last_day) as events
from cell
where first_day <= last_day
group by grouping sets (
    (), (age_group), (sex), (age_group, sex),
    (interval_start), (interval_start, age_group), (interval_start, sex), (interval_start, age_group, sex)
)
