-- DEVICE_EXPOSURE: prescriptions whose NDC is a device, such as test strips (tag 0), and billed devices (8 to 10).
--
-- Both are known to be devices from a vocabulary download only; without one this table is empty. Lines and tubes that
-- nurses chart are procedures: what MIMIC records is that somebody put them in.
SELECT
    part_id(rx.row_id, 0, rx.nth) AS device_exposure_id,
    rx.subject_id AS person_id,
    rx.concept_id AS device_concept_id,
    CAST(rx.start_datetime AS DATE) AS device_exposure_start_date,
    rx.start_datetime AS device_exposure_start_datetime,
    CAST(rx.end_datetime AS DATE) AS device_exposure_end_date,
    rx.end_datetime AS device_exposure_end_datetime,
    concept('EHR prescription') AS device_type_concept_id,
    rx.visit_occurrence_id,
    rx.visit_detail_id,
    rx.source_value AS device_source_value,
    rx.source_concept_id AS device_source_concept_id
FROM stage.prescribed AS rx
WHERE rx.domain_id = 'Device'

UNION ALL

SELECT
    part_id(billed.row_id, billed.tag, billed.nth) AS device_exposure_id,
    billed.subject_id AS person_id,
    billed.concept_id AS device_concept_id,
    CAST(billed.start_datetime AS DATE) AS device_exposure_start_date,
    billed.start_datetime AS device_exposure_start_datetime,
    CAST(billed.end_datetime AS DATE) AS device_exposure_end_date,
    billed.end_datetime AS device_exposure_end_datetime,
    concept('EHR billing record') AS device_type_concept_id,
    billed.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    billed.code AS device_source_value,
    billed.source_concept_id AS device_source_concept_id
FROM stage.billed AS billed
WHERE billed.domain_id = 'Device'
