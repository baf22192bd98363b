select person_id, observation_date as start_date, observation_date as end_date
from observation
where observation_concept_id in $observation
