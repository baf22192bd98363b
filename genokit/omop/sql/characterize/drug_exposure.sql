-- How long a supply of a drug lasts, how often it is refilled, and how much it is.
insert into described
with drug as (
    select
        event.drug_concept_id as concept_id,
        summary_of(event.days_supply) as days,
        summary_of(event.refills) as refills,
        summary_of(event.quantity) as quantity
    from drug_exposure as event
    join observation_period as seen
        on seen.person_id = event.person_id
        and event.drug_exposure_start_date
        between seen.observation_period_start_date and seen.observation_period_end_date
    group by event.drug_concept_id
)
select 715, concept_id, null, days from drug where days.n > 0
union all
select 716, concept_id, null, refills from drug where refills.n > 0
union all
select 717, concept_id, null, quantity from drug where quantity.n > 0;
