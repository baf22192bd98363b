-- OBSERVATION_PERIOD: one a person, from the first to the last day of which anything is recorded in care.
--
-- That is the beginning and end of visits, the day of every record of the other tables, outpatients' results, cultures
-- and notes among them, and a death that the hospital knows of. Between two stays the hospital did not look, but the
-- CDM's convention for hospital records is one span, and studies that ask for prior observation rely on it.
--
-- Left out: a death that only the Social Security index knows, which no one saw in care; and the end of what was
-- ordered, as a prescription may last beyond the discharge.
WITH seen AS (
    SELECT person_id, MIN(visit_start_date) AS first_day, MAX(visit_end_date) AS last_day
    FROM cdm.visit_occurrence
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(visit_detail_start_date) AS first_day, MAX(visit_detail_end_date) AS last_day
    FROM cdm.visit_detail
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(condition_start_date) AS first_day, MAX(condition_start_date) AS last_day
    FROM cdm.condition_occurrence
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(drug_exposure_start_date) AS first_day, MAX(drug_exposure_start_date) AS last_day
    FROM cdm.drug_exposure
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(procedure_date) AS first_day, MAX(procedure_date) AS last_day
    FROM cdm.procedure_occurrence
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(device_exposure_start_date) AS first_day, MAX(device_exposure_start_date) AS last_day
    FROM cdm.device_exposure
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(measurement_date) AS first_day, MAX(measurement_date) AS last_day
    FROM cdm.measurement
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(observation_date) AS first_day, MAX(observation_date) AS last_day
    FROM cdm.observation
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(specimen_date) AS first_day, MAX(specimen_date) AS last_day
    FROM cdm.specimen
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(note_date) AS first_day, MAX(note_date) AS last_day
    FROM cdm.note
    GROUP BY person_id
    UNION ALL
    SELECT person_id, MIN(death_date) AS first_day, MAX(death_date) AS last_day
    FROM cdm.death
    WHERE death_type_concept_id = concept('EHR')
    GROUP BY person_id
)

SELECT
    seen.person_id AS observation_period_id,
    seen.person_id,
    MIN(seen.first_day) AS observation_period_start_date,
    MAX(seen.last_day) AS observation_period_end_date,
    concept('Standard algorithm from EHR') AS period_type_concept_id
FROM seen
WHERE seen.first_day IS NOT NULL AND seen.last_day IS NOT NULL
GROUP BY seen.person_id
