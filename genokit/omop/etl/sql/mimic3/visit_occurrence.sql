-- VISIT_OCCURRENCE: one row an admission to the hospital; visit_occurrence_id is MIMIC's hadm_id.
--
-- A stay in intensive care is no visit of its own, but a detail of one. Emergency and urgent admissions count as
-- visits through the emergency room. A visit begins when the emergency room registered the patient, or else with the
-- admission. Organ donors are discharged before they are admitted: their visit ends at once.
WITH came AS (
    SELECT
        hadm_id, subject_id, dischtime, admission_type, admission_location, discharge_location,
        CASE WHEN edregtime < admittime THEN edregtime ELSE admittime END AS admittime
    FROM mimic3.admissions
),

admission AS (
    SELECT
        adm.hadm_id,
        adm.subject_id,
        adm.admittime,
        CASE WHEN adm.dischtime >= adm.admittime THEN adm.dischtime ELSE adm.admittime END AS dischtime,
        adm.admission_type,
        adm.admission_location,
        adm.discharge_location,
        LAG(adm.hadm_id) OVER (PARTITION BY adm.subject_id ORDER BY adm.admittime, adm.hadm_id) AS preceding_hadm_id
    FROM came AS adm
)

SELECT
    adm.hadm_id AS visit_occurrence_id,
    person.person_id,
    COALESCE(kind.concept_id, concept('Inpatient visit')) AS visit_concept_id,
    CAST(adm.admittime AS DATE) AS visit_start_date,
    adm.admittime AS visit_start_datetime,
    CAST(adm.dischtime AS DATE) AS visit_end_date,
    adm.dischtime AS visit_end_datetime,
    concept('EHR encounter record') AS visit_type_concept_id,
    hash_id('hospital') AS care_site_id,
    adm.admission_type AS visit_source_value,
    0 AS visit_source_concept_id,
    COALESCE(came_from.concept_id, 0) AS admitted_from_concept_id,
    adm.admission_location AS admitted_from_source_value,
    COALESCE(went_to.concept_id, 0) AS discharged_to_concept_id,
    adm.discharge_location AS discharged_to_source_value,
    adm.preceding_hadm_id AS preceding_visit_occurrence_id
FROM admission AS adm
JOIN cdm.person AS person ON person.person_id = adm.subject_id
LEFT JOIN vocab.source_to_concept AS kind
    ON kind.source_vocabulary_id = 'mimic3 visits'
    AND kind.source_code = 'TYPE ' || UPPER(adm.admission_type) AND kind.nth = 0
LEFT JOIN vocab.source_to_concept AS came_from
    ON came_from.source_vocabulary_id = 'mimic3 visits'
    AND came_from.source_code = 'FROM ' || UPPER(adm.admission_location) AND came_from.nth = 0
LEFT JOIN vocab.source_to_concept AS went_to
    ON went_to.source_vocabulary_id = 'mimic3 visits'
    AND went_to.source_code = 'TO ' || UPPER(adm.discharge_location) AND went_to.nth = 0
