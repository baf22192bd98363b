-- Distributions that Athena has calculated already.
select
    analysis_id::integer as analysis_id,
    stratum_1, stratum_2, null::varchar as stratum_3, null::varchar as stratum_4, null::varchar as stratum_5,
    n as count_value, least as min_value, most as max_value, average as avg_value, deviation as stdev_value,
    p50 as median_value, p10 as p10_value, p25 as p25_value, p75 as p75_value, p90 as p90_value
from the_rows
where least is not null
