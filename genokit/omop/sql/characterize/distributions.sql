-- The distributions as Achilles has them: a part of all is at or below the first value that reaches it.
with total as (
    select analysis_id, stratum_1, stratum_2, value, sum(n)::bigint as n from spread where value is not null group by all
),
upto as (
    select
        *,
        sum(n) over (partition by analysis_id, stratum_1, stratum_2 order by value) as upto,
        sum(n) over (partition by analysis_id, stratum_1, stratum_2) as whole
    from total
),
every as (
    select
        analysis_id,
        stratum_1,
        stratum_2,
        sum(n)::bigint as count_value,
        min(value)::double as min_value,
        max(value)::double as max_value,
        sum(value * n) / sum(n) as avg_value,
        sqrt((sum(value * value * n) - sum(value * n)::double * sum(value * n) / sum(n)) / nullif(sum(n) - 1, 0))
            as stdev_value,
        min(case when upto >= 0.50 * whole then value end)::double as median_value,
        min(case when upto >= 0.10 * whole then value end)::double as p10_value,
        min(case when upto >= 0.25 * whole then value end)::double as p25_value,
        min(case when upto >= 0.75 * whole then value end)::double as p75_value,
        min(case when upto >= 0.90 * whole then value end)::double as p90_value
    from upto
    group by analysis_id, stratum_1, stratum_2
    union all
    select
        analysis_id, stratum_1, stratum_2, summary.n, summary.least, summary.most, summary.average, summary.deviation,
        summary.parts[3], summary.parts[1], summary.parts[2], summary.parts[4], summary.parts[5]
    from described
)
select
    analysis_id,
    stratum_1,
    stratum_2,
    null::varchar as stratum_3,
    null::varchar as stratum_4,
    null::varchar as stratum_5,
    * exclude (analysis_id, stratum_1, stratum_2)
from every
where analysis_id in (select analysis_id from asked where is_distribution)
order by all
