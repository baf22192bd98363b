select person_id, measurement_date as start_date, measurement_date as end_date
from measurement
where measurement_concept_id in $measurement
    and (value_as_number >= $least or $least is null)
    and (value_as_number <= $most or $most is null)
