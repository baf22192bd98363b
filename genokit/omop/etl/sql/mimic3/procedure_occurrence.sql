-- PROCEDURE_OCCURRENCE: billed ICD-9 procedures and CPT codes, and what nurses charted as procedures.
--
-- ICD-9 procedures have no dates in MIMIC: they take the admission's. CPT codes have the day they were billed for, and
-- lines the day they were put in. What was billed several times for one admission and day has that quantity; what was
-- charted again and again, as a line is in every shift, is one procedure.
SELECT
    part_id(billed.row_id, billed.tag, billed.nth) AS procedure_occurrence_id,
    billed.subject_id AS person_id,
    billed.concept_id AS procedure_concept_id,
    CAST(billed.start_datetime AS DATE) AS procedure_date,
    billed.start_datetime AS procedure_datetime,
    CAST(billed.end_datetime AS DATE) AS procedure_end_date,
    billed.end_datetime AS procedure_end_datetime,
    concept('EHR billing record') AS procedure_type_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    billed.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    billed.quantity,
    billed.code AS procedure_source_value,
    billed.source_concept_id AS procedure_source_concept_id,
    billed.modifier AS modifier_source_value
FROM stage.billed AS billed
WHERE billed.domain_id = 'Procedure'

UNION ALL

SELECT
    charted.id AS procedure_occurrence_id,
    charted.person_id,
    charted.concept_id AS procedure_concept_id,
    CAST(charted.start_datetime AS DATE) AS procedure_date,
    charted.start_datetime AS procedure_datetime,
    CAST(charted.end_datetime AS DATE) AS procedure_end_date,
    charted.end_datetime AS procedure_end_datetime,
    concept('EHR') AS procedure_type_concept_id,
    charted.provider_id,
    charted.visit_occurrence_id,
    charted.visit_detail_id,
    1 AS quantity,
    charted.source_value AS procedure_source_value,
    0 AS procedure_source_concept_id,
    charted.location AS modifier_source_value
FROM stage.charted_procedure AS charted
WHERE charted.domain_id NOT IN ('Condition', 'Observation', 'Measurement', 'Specimen')
