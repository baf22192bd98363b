-- The distribution of numbers from the count of each: a percentile is the first number at which the running count reaches
-- it. Follows a query that counts them as `amount`.
upto as (
    select
        *,
        sum(n) over (
            partition by analysis_id, stratum_1, stratum_2, stratum_3 order by amount rows unbounded preceding
        ) as upto,
        sum(n) over (partition by analysis_id, stratum_1, stratum_2, stratum_3) as whole,
        sum(amount * n) over (partition by analysis_id, stratum_1, stratum_2, stratum_3)
            / sum(n) over (partition by analysis_id, stratum_1, stratum_2, stratum_3) as middle
    from amount
)
select
    analysis_id, stratum_1, stratum_2, stratum_3,
    sum(n) as n,
    min(amount) as least,
    max(amount) as most,
    min(middle) as average,
    sqrt(sum(n * (amount - middle) * (amount - middle)) / nullif(sum(n) - 1, 0)) as deviation,
    min(case when upto >= 0.10 * whole then amount end) as p10,
    min(case when upto >= 0.25 * whole then amount end) as p25,
    min(case when upto >= 0.50 * whole then amount end) as p50,
    min(case when upto >= 0.75 * whole then amount end) as p75,
    min(case when upto >= 0.90 * whole then amount end) as p90
from upto
group by analysis_id, stratum_1, stratum_2, stratum_3
