-- The sequences of treatments, or of their combinations, during a target cohort, and the persons with each. Runs on this
-- machine, over two tables of this program: target (a row for each person) and event (treatments numbered from 0), with
-- days as numbers. A combination is a sum of powers of two, one for each of its treatments.
with inside as (
    select e.subject_id, e.treatment, e.first_day, least(e.last_day, t.last_day) as last_day
    from event as e
    join target as t on t.subject_id = e.subject_id and e.first_day between t.first_day and t.last_day
),
marked as (
    select *, coalesce(first_day - max(last_day) over before > $gap_days, true) as begins
    from inside
    window before as (
        partition by subject_id, treatment order by first_day, last_day
        rows between unbounded preceding and 1 preceding
    )
),
numbered as (
    select *, count(*) filter (begins) over (
        partition by subject_id, treatment order by first_day, last_day
        rows between unbounded preceding and current row
    ) as number
    from marked
),
era as (
    select subject_id, treatment, min(first_day) as first_day, max(last_day) as last_day
    from numbered
    group by subject_id, treatment, number
),
-- An era that overlaps too briefly with one that begins later and lasts longer ends where that one begins.
switched as (
    select a.subject_id, a.treatment, a.first_day, coalesce(min(b.first_day) - 1, a.last_day) as last_day
    from era as a
    left join era as b
        on b.subject_id = a.subject_id
        and b.first_day > a.first_day
        and b.first_day <= a.last_day
        and b.last_day > a.last_day
        and a.last_day - b.first_day + 1 < $combination_days
    group by a.subject_id, a.treatment, a.first_day, a.last_day
),
change as (
    select subject_id, first_day as day, cast(1 as bigint) << treatment as bit from switched
    union all
    select subject_id, last_day + 1, cast(1 as bigint) << treatment from switched
),
turn as (
    select subject_id, day, bit_xor(bit) as bits
    from change
    group by subject_id, day
),
part as (
    select subject_id, day, lead(day) over following - day as days, bit_xor(bits) over following as combination
    from turn
    window following as (partition by subject_id order by day)
),
longest as (
    select p.subject_id, p.day
    from part as p
    join switched as s on s.subject_id = p.subject_id and p.day between s.first_day and s.last_day
    qualify row_number() over (partition by s.subject_id, s.treatment, s.first_day order by p.days desc, p.day) = 1
),
kept as (
    select p.subject_id, p.day, p.combination
    from part as p
    where p.combination > 0
        and (p.days >= $combination_days or (p.subject_id, p.day) in (select subject_id, day from longest))
),
step as (
    select *
    from kept
    qualify combination is distinct from lag(combination) over (partition by subject_id order by day)
),
once as (
    select *
    from step
    qualify not $first_only or row_number() over (partition by subject_id, combination order by day) = 1
),
first as (
    select *
    from once
    qualify row_number() over (partition by subject_id order by day) <= $most_steps
),
path as (
    select list(combination order by day) as steps
    from first
    group by subject_id
)
select steps, count(*) as persons
from path
group by steps
