-- What was recorded of some persons, each concept once a day.
select distinct r.person_id, r.domain, r.concept_id, c.concept_name, r.start_date
from (
    select person_id, 'condition' as domain, condition_concept_id as concept_id, condition_start_date as start_date
    from condition_occurrence
    where person_id in $persons
    union all
    select person_id, 'drug', drug_concept_id, drug_exposure_start_date
    from drug_exposure
    where person_id in $persons
) as r
join concept as c on c.concept_id = r.concept_id
where r.concept_id <> 0
