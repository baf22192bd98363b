-- Days of supply, refills and quantity of drugs.
insert into described
with drug as (
    select
        drug_concept_id as concept_id,
        drug_exposure_start_date between seen.start_date and seen.end_date as inside,
        summary_of(days_supply) as days,
        summary_of(refills) as refills,
        summary_of(quantity) as quantity
    from drug_exposure
    join observed as seen using (person_id)
    group by all
)
select 715, concept_id, null, days from drug where inside and days.n > 0
union all
select 716, concept_id, null, refills from drug where inside and refills.n > 0
union all
select 717, concept_id, null, quantity from drug where inside and quantity.n > 0;
