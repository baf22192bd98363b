-- Values of measurements by unit, their ranges, and the position in the range.
with number as (
    select
        event.measurement_concept_id as concept_id,
        event.unit_concept_id as unit_id,
        event.value_as_number as value,
        case when event.range_high is not null then event.range_low end as low,
        case when event.range_low is not null then event.range_high end as high
    from measurement as event
    join observation_period as seen
        on seen.person_id = event.person_id
        and event.measurement_date between seen.observation_period_start_date and seen.observation_period_end_date
    where event.value_as_number is not null and event.unit_concept_id is not null
),
placed as (
    select
        *,
        case
            when low is null then null
            when value < low then 'Below Range Low'
            when value > high then 'Above Range High'
            when value between low and high then 'Within Range'
            else 'Other'
        end as place
    from number
),
amount as (
    select
        case
            when grouping(value) = 0 then 1815
            when grouping(low) = 0 then 1816
            when grouping(high) = 0 then 1817
            else 1818
        end as analysis_id,
        concept_id as stratum_1,
        unit_id as stratum_2,
        place as stratum_3,
        coalesce(value, low, high) as amount,
        count(*) as n
    from placed
    group by grouping sets (
        (concept_id, unit_id, value), (concept_id, unit_id, low), (concept_id, unit_id, high),
        (concept_id, unit_id, place)
    )
    having coalesce(value, low, high) is not null or place is not null
),
the_summary
