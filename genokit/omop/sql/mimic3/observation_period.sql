-- OBSERVATION_PERIOD: one a person, from the first to the last day on which the hospital saw the person.
--
-- Beside admissions these are outpatient laboratory results, cultures and notes: those of no admission. Between two
-- stays the hospital did not look, but the CDM's convention for hospital records is one span, and studies that ask
-- for prior observation rely on it. A death that only the Social Security index knows is not seen by the hospital.
WITH seen AS (
    SELECT subject_id, CAST(admittime AS DATE) AS day FROM mimic3.admissions
    UNION ALL
    SELECT subject_id, CAST(dischtime AS DATE) AS day FROM mimic3.admissions
    UNION ALL
    SELECT subject_id, CAST(edregtime AS DATE) AS day FROM mimic3.admissions
    UNION ALL
    SELECT subject_id, CAST(charttime AS DATE) AS day FROM mimic3.labevents WHERE hadm_id IS NULL
    UNION ALL
    SELECT subject_id, CAST(chartdate AS DATE) AS day FROM mimic3.microbiologyevents WHERE hadm_id IS NULL
    UNION ALL
    SELECT subject_id, CAST(chartdate AS DATE) AS day FROM mimic3.noteevents WHERE hadm_id IS NULL
)

SELECT
    person.person_id AS observation_period_id,
    person.person_id,
    MIN(seen.day) AS observation_period_start_date,
    MAX(seen.day) AS observation_period_end_date,
    concept('Standard algorithm from EHR') AS period_type_concept_id
FROM cdm.person AS person
JOIN seen ON seen.subject_id = person.person_id
WHERE seen.day IS NOT NULL
GROUP BY person.person_id
