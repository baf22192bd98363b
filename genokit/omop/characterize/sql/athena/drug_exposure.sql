-- Days of supply, refills and quantity of drugs.
with drug as (
    select
        event.drug_concept_id as concept_id,
        cast(event.days_supply as double) as days,
        cast(event.refills as double) as refills,
        event.quantity
    from drug_exposure as event
    join observation_period as seen
        on seen.person_id = event.person_id
        and event.drug_exposure_start_date
        between seen.observation_period_start_date and seen.observation_period_end_date
),
amount as (
    select
        case when grouping(days) = 0 then 715 when grouping(refills) = 0 then 716 else 717 end as analysis_id,
        concept_id as stratum_1,
        cast(null as integer) as stratum_2,
        cast(null as varchar) as stratum_3,
        coalesce(days, refills, quantity) as amount,
        count(*) as n
    from drug
    group by grouping sets ((concept_id, days), (concept_id, refills), (concept_id, quantity))
    having coalesce(days, refills, quantity) is not null
),
the_summary
