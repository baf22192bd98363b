select person_id, condition_start_date as start_date, coalesce(condition_end_date, condition_start_date) as end_date
from condition_occurrence
where condition_concept_id in $condition
