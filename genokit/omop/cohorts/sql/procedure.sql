select person_id, procedure_date as start_date, coalesce(procedure_end_date, procedure_date) as end_date
from procedure_occurrence
where procedure_concept_id in $procedure
