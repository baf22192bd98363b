-- The counts as Achilles has them.
with every as (
    select * from counted
    union all
    -- Persons with a concept, and with at least so many records of it.
    select analysis_id - 91, stratum_1::varchar, null, null, null, sum(n) from spread where analysis_id % 100 = 91 group by all
    union all
    select
        analysis_id,
        stratum_1::varchar,
        value::bigint::varchar,
        null,
        null,
        sum(n) over (partition by analysis_id, stratum_1 order by value desc)
    from (select analysis_id, stratum_1, value, sum(n) as n from spread where analysis_id % 100 = 91 group by all)
)
select
    analysis_id,
    stratum_1,
    stratum_2,
    stratum_3,
    stratum_4,
    null::varchar as stratum_5,
    n::bigint as count_value
from every
where analysis_id in (select analysis_id from asked where not is_distribution)
order by all
