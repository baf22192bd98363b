-- The distributions as Achilles has them: a percentile is the first value at which the running count reaches it.
with total as (
    select analysis_id, stratum_1, stratum_2, value, sum(n)::bigint as n from spread where value is not null group by all
),
upto as (
    select
        *,
        sum(n) over (partition by analysis_id, stratum_1, stratum_2 order by value) as upto,
        sum(n) over (partition by analysis_id, stratum_1, stratum_2) as whole,
        sum(value * n) over (partition by analysis_id, stratum_1, stratum_2) / whole as average
    from total
    where analysis_id in (select analysis_id from asked where is_distribution)
),
every as (
    select
        analysis_id,
        stratum_1,
        stratum_2,
        sum(n)::bigint as count_value,
        min(value) as min_value,
        max(value) as max_value,
        any_value(average) as avg_value,
        sqrt(sum(n * power(value - average, 2)) / nullif(sum(n) - 1, 0)) as stdev_value,
        min(value) filter (upto >= 0.50 * whole) as median_value,
        min(value) filter (upto >= 0.10 * whole) as p10_value,
        min(value) filter (upto >= 0.25 * whole) as p25_value,
        min(value) filter (upto >= 0.75 * whole) as p75_value,
        min(value) filter (upto >= 0.90 * whole) as p90_value
    from upto
    group by all
    union all
    select
        analysis_id, stratum_1, stratum_2, summary.n, summary.least, summary.most, summary.average, summary.deviation,
        summary.parts[3], summary.parts[1], summary.parts[2], summary.parts[4], summary.parts[5]
    from described
)
select
    analysis_id,
    stratum_1::varchar as stratum_1,
    stratum_2::varchar as stratum_2,
    null::varchar as stratum_3,
    null::varchar as stratum_4,
    null::varchar as stratum_5,
    * exclude (analysis_id, stratum_1, stratum_2)
from every
order by all
