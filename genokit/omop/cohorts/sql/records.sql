-- Conditions and drugs recorded between two days, of everyone or of listed persons.
select person_id, 'condition' as domain, condition_concept_id as concept_id, condition_start_date as start_date
from condition_occurrence
where condition_start_date between $since and $until and condition_concept_id <> 0
    and ($everyone or person_id in $persons)
union all
select person_id, 'drug', drug_concept_id, drug_exposure_start_date
from drug_exposure
where drug_exposure_start_date between $since and $until and drug_concept_id <> 0
    and ($everyone or person_id in $persons)
