-- OBSERVATION: what is known of a patient and fits nowhere else.
--
--   0 to 4   asked at admission: religion, marital status, language, insurance, and the reason in the admitting words
--   5        the DRG that the admission was billed under
--   6        days that were charted, each once, unless they are those of a procedure in the same visit, such as putting
--            in a line
--   7        chart rows that measure nothing: by their concept's domain, or unmapped texts
--   8 to 10  what was billed and is an observation, such as a history of smoking
--   11       what was charted as a procedure and is an observation, such as a talk with the family
--   12       the service that took over the patient
--
-- CALLOUT (readiness to leave intensive care) has no place in the CDM and is not carried over.
WITH answer AS (
    SELECT 0 AS tag, row_id, hadm_id, 'RELIGION ' || UPPER(religion) AS code, religion AS words,
        concept('Religious affiliation') AS concept_id, 'religion' AS question
    FROM mimic3.admissions WHERE religion IS NOT NULL
    UNION ALL
    SELECT 1 AS tag, row_id, hadm_id, 'MARITAL ' || UPPER(marital_status) AS code, marital_status AS words,
        concept('Marital status') AS concept_id, 'marital status' AS question
    FROM mimic3.admissions WHERE marital_status IS NOT NULL
    UNION ALL
    SELECT 2 AS tag, row_id, hadm_id, 'LANGUAGE ' || UPPER(language) AS code, language AS words,
        0 AS concept_id, 'language' AS question
    FROM mimic3.admissions WHERE language IS NOT NULL
    UNION ALL
    SELECT 3 AS tag, row_id, hadm_id, 'INSURANCE ' || UPPER(insurance) AS code, insurance AS words,
        0 AS concept_id, 'insurance' AS question
    FROM mimic3.admissions WHERE insurance IS NOT NULL
    UNION ALL
    SELECT 4 AS tag, row_id, hadm_id, CAST(NULL AS VARCHAR) AS code, diagnosis AS words,
        0 AS concept_id, 'admitting diagnosis' AS question
    FROM mimic3.admissions WHERE diagnosis IS NOT NULL
)

SELECT
    event_id(answer.row_id, answer.tag) AS observation_id,
    visit.person_id,
    answer.concept_id AS observation_concept_id,
    visit.visit_start_date AS observation_date,
    visit.visit_start_datetime AS observation_datetime,
    concept('EHR encounter record') AS observation_type_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    answer.words AS value_as_string,
    meaning.concept_id AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    visit.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    answer.question AS observation_source_value,
    0 AS observation_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    answer.words AS value_source_value
FROM answer
JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = answer.hadm_id
LEFT JOIN vocab.source_to_concept AS meaning
    ON meaning.source_vocabulary_id = 'mimic3 answers' AND meaning.source_code = answer.code AND meaning.nth = 0

UNION ALL

SELECT
    event_id(drg.row_id, 5) AS observation_id,
    visit.person_id,
    COALESCE(meaning.concept_id, 0) AS observation_concept_id,
    visit.visit_end_date AS observation_date,
    visit.visit_end_datetime AS observation_datetime,
    concept('EHR billing record') AS observation_type_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    drg.description AS value_as_string,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    visit.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    drg.drg_type || ' DRG ' || drg.drg_code AS observation_source_value,
    0 AS observation_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    drg.description AS value_source_value
FROM mimic3.drgcodes AS drg
JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = drg.hadm_id
LEFT JOIN vocab.source_to_concept AS meaning
    ON meaning.source_vocabulary_id = 'mimic3 drgs' AND meaning.source_code = UPPER(TRIM(drg.description))
    AND meaning.nth = 0

UNION ALL

SELECT
    event_id(dated.row_id, 6) AS observation_id,
    dated.person_id,
    dated.concept_id AS observation_concept_id,
    CAST(dated.charttime AS DATE) AS observation_date,
    dated.charttime AS observation_datetime,
    concept('EHR') AS observation_type_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    CAST(CAST(dated.value AS DATE) AS VARCHAR) || ' ' || clock_time(dated.value) AS value_as_string,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    dated.provider_id,
    dated.visit_occurrence_id,
    dated.visit_detail_id,
    dated.source_value AS observation_source_value,
    0 AS observation_source_concept_id,
    dated.valueuom AS unit_source_value,
    CAST(CAST(dated.value AS DATE) AS VARCHAR) || ' ' || clock_time(dated.value) AS value_source_value
FROM stage.charted_day AS dated
WHERE dated.is_procedure = 0

UNION ALL

SELECT
    event_id(chart.row_id, 7) AS observation_id,
    person.person_id,
    COALESCE(item.concept_id, 0) AS observation_concept_id,
    CAST(chart.charttime AS DATE) AS observation_date,
    chart.charttime AS observation_datetime,
    concept('EHR') AS observation_type_concept_id,
    chart.valuenum AS value_as_number,
    chart.value AS value_as_string,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    provider.provider_id,
    visit.visit_occurrence_id,
    detail.visit_detail_id,
    COALESCE(item.source_value, CAST(chart.itemid AS VARCHAR)) AS observation_source_value,
    0 AS observation_source_concept_id,
    chart.valueuom AS unit_source_value,
    chart.value AS value_source_value
FROM mimic3.chartevents AS chart
JOIN cdm.person AS person ON person.person_id = chart.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = chart.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(chart.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = chart.cgid
LEFT JOIN stage.item AS item ON item.itemid = chart.itemid
WHERE chart.charttime IS NOT NULL
    AND COALESCE(chart.error, 0) = 0
    AND (chart.value IS NOT NULL OR chart.valuenum IS NOT NULL)
    AND COALESCE(item.domain_id, CASE WHEN chart.valuenum IS NOT NULL THEN 'Measurement' ELSE 'Observation' END)
        <> 'Measurement'

UNION ALL

SELECT
    part_id(billed.row_id, billed.tag, billed.nth) AS observation_id,
    billed.subject_id AS person_id,
    billed.concept_id AS observation_concept_id,
    CAST(billed.start_datetime AS DATE) AS observation_date,
    billed.start_datetime AS observation_datetime,
    concept('EHR billing record') AS observation_type_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    CAST(NULL AS VARCHAR) AS value_as_string,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    billed.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    billed.code AS observation_source_value,
    billed.source_concept_id AS observation_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    CAST(NULL AS VARCHAR) AS value_source_value
FROM stage.billed AS billed
WHERE billed.domain_id = 'Observation'

UNION ALL

SELECT
    charted.id AS observation_id,
    charted.person_id,
    charted.concept_id AS observation_concept_id,
    CAST(charted.start_datetime AS DATE) AS observation_date,
    charted.start_datetime AS observation_datetime,
    concept('EHR') AS observation_type_concept_id,
    charted.value AS value_as_number,
    CAST(NULL AS VARCHAR) AS value_as_string,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    charted.provider_id,
    charted.visit_occurrence_id,
    charted.visit_detail_id,
    charted.source_value AS observation_source_value,
    0 AS observation_source_concept_id,
    charted.unit AS unit_source_value,
    CAST(NULL AS VARCHAR) AS value_source_value
FROM stage.charted_procedure AS charted
WHERE charted.domain_id IN ('Observation', 'Specimen')

UNION ALL

SELECT
    event_id(service.row_id, 12) AS observation_id,
    visit.person_id,
    0 AS observation_concept_id,
    CAST(service.transfertime AS DATE) AS observation_date,
    service.transfertime AS observation_datetime,
    concept('EHR encounter record') AS observation_type_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    service.curr_service AS value_as_string,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    visit.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    'service' AS observation_source_value,
    0 AS observation_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    service.curr_service AS value_source_value
FROM mimic3.services AS service
JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = service.hadm_id
