-- How long a supply of a drug lasts, how often it is refilled, and how much it is.
insert into spread
select * exclude (inside)
from (
    select
        case when grouping(days_supply) = 0 then 715 when grouping(refills) = 0 then 716 else 717 end,
        drug_concept_id,
        null,
        case when grouping(days_supply) = 0 then days_supply when grouping(refills) = 0 then refills else quantity end,
        count(*),
        inside
    from (
        select event.*, drug_exposure_start_date between seen.start_date and seen.end_date as inside
        from drug_exposure as event
        join observed as seen using (person_id)
    )
    group by grouping sets (
        (drug_concept_id, inside, days_supply), (drug_concept_id, inside, refills), (drug_concept_id, inside, quantity)
    )
)
where inside;
