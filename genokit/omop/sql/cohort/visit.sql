select person_id, visit_start_date as start_date, coalesce(visit_end_date, visit_start_date) as end_date
from visit_occurrence
where visit_concept_id in $visit
