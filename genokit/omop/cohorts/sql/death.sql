select person_id, death_date as start_date, death_date as end_date
from death
where ($any_cause or cause_concept_id in $death)
