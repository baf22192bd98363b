-- CONDITION_OCCURRENCE: billed diagnoses (and whatever else was billed and is a condition), with the dates of their
-- admission, and the events that nurses charted as procedures but that befell the patient, such as a cardiac arrest.
--
-- The first diagnosis of an admission is its primary one. A diagnosis is known at discharge and was treated during the
-- stay; when it began, MIMIC does not say.
SELECT
    part_id(billed.row_id, billed.tag, billed.nth) AS condition_occurrence_id,
    billed.subject_id AS person_id,
    billed.concept_id AS condition_concept_id,
    CAST(billed.start_datetime AS DATE) AS condition_start_date,
    billed.start_datetime AS condition_start_datetime,
    CAST(billed.end_datetime AS DATE) AS condition_end_date,
    billed.end_datetime AS condition_end_datetime,
    concept('EHR billing record') AS condition_type_concept_id,
    CASE
        WHEN billed.tag = 8 AND billed.seq_num = 1 THEN concept('Primary diagnosis')
        WHEN billed.tag = 8 AND billed.seq_num > 1 THEN concept('Secondary diagnosis')
    END AS condition_status_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    billed.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    billed.code AS condition_source_value,
    billed.source_concept_id AS condition_source_concept_id,
    CASE WHEN billed.tag = 8 THEN CAST(billed.seq_num AS VARCHAR) END AS condition_status_source_value
FROM stage.billed AS billed
WHERE billed.domain_id = 'Condition'

UNION ALL

SELECT
    charted.id AS condition_occurrence_id,
    charted.person_id,
    charted.concept_id AS condition_concept_id,
    CAST(charted.start_datetime AS DATE) AS condition_start_date,
    charted.start_datetime AS condition_start_datetime,
    CAST(charted.end_datetime AS DATE) AS condition_end_date,
    charted.end_datetime AS condition_end_datetime,
    concept('EHR') AS condition_type_concept_id,
    CAST(NULL AS BIGINT) AS condition_status_concept_id,
    charted.provider_id,
    charted.visit_occurrence_id,
    charted.visit_detail_id,
    charted.source_value AS condition_source_value,
    0 AS condition_source_concept_id,
    CAST(NULL AS VARCHAR) AS condition_status_source_value
FROM stage.charted_procedure AS charted
WHERE charted.domain_id = 'Condition'
