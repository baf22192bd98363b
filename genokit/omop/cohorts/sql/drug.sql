select
    person_id, drug_exposure_start_date as start_date,
    coalesce(drug_exposure_end_date, drug_exposure_start_date) as end_date
from drug_exposure
where drug_concept_id in $drug
