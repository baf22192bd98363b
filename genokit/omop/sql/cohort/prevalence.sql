-- Who was observed in an interval, and who of them was in the cohort then, by the age that they had on their first day
-- in it and by sex; each also taken together as 'all'. Runs here, over tables of this program: observed, case_span, part
-- and age.
with seen as (
    select p.interval_start, p.interval_end, o.person_id, o.sex, o.birth,
        min(greatest(o.first_day, p.interval_start)) as day
    from observed as o
    join part as p on p.interval_start <= o.last_day and p.interval_end >= o.first_day
    group by all
),
cases as (
    select distinct p.interval_start, o.person_id
    from observed as o
    join case_span as c
        on c.person_id = o.person_id and c.first_day <= o.last_day and c.last_day >= o.first_day
    join part as p
        on p.interval_start <= least(o.last_day, c.last_day) and p.interval_end >= greatest(o.first_day, c.first_day)
)
select
    s.interval_start,
    coalesce(a.age_group, 'all') as age_group,
    coalesce(s.sex, 'all') as sex,
    count(*) as persons,
    count(c.person_id) as cases
from seen as s
join age as a
    on s.day >= cast(s.birth + to_years(a.low) as date) and s.day < cast(s.birth + to_years(a.high + 1) as date)
left join cases as c on c.interval_start = s.interval_start and c.person_id = s.person_id
group by grouping sets (
    (s.interval_start), (s.interval_start, a.age_group), (s.interval_start, s.sex),
    (s.interval_start, a.age_group, s.sex)
)
