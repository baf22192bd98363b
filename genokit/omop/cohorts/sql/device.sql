select
    person_id, device_exposure_start_date as start_date,
    coalesce(device_exposure_end_date, device_exposure_start_date) as end_date
from device_exposure
where device_concept_id in $device
