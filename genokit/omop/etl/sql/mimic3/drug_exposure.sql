-- DRUG_EXPOSURE: prescriptions (tag 0), what pumps gave in the MetaVision (1) and the CareVue years (2), and billed
-- drugs (8 to 10).
--
-- A prescription says what was ordered, an input what was given: the type concept tells them apart, and nobody should
-- add them up. MetaVision inputs that were cancelled or rewritten did not happen. A CareVue input is one charted
-- moment, so it ends as it begins. Where neither an amount nor a rate above 0 was charted, nothing was given and the
-- row is left out: a pump that stands still is no exposure. The nurse who charted is the provider (never the time of
-- charting).
SELECT
    part_id(rx.row_id, 0, rx.nth) AS drug_exposure_id,
    rx.subject_id AS person_id,
    rx.concept_id AS drug_concept_id,
    CAST(rx.start_datetime AS DATE) AS drug_exposure_start_date,
    rx.start_datetime AS drug_exposure_start_datetime,
    CAST(rx.end_datetime AS DATE) AS drug_exposure_end_date,
    rx.end_datetime AS drug_exposure_end_datetime,
    CAST(rx.verbatim_end AS DATE) AS verbatim_end_date,
    concept('EHR prescription') AS drug_type_concept_id,
    CAST(NULL AS VARCHAR) AS stop_reason,
    rx.quantity,
    rx.sig,
    COALESCE(route.concept_id, 0) AS route_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    rx.visit_occurrence_id,
    rx.visit_detail_id,
    rx.source_value AS drug_source_value,
    rx.source_concept_id AS drug_source_concept_id,
    rx.route AS route_source_value,
    rx.dose_unit AS dose_unit_source_value
FROM stage.prescribed AS rx
LEFT JOIN vocab.source_to_concept AS route
    ON route.source_vocabulary_id = 'mimic3 routes' AND route.source_code = UPPER(rx.route) AND route.nth = 0
WHERE rx.domain_id <> 'Device'

UNION ALL

SELECT
    event_id(given.row_id, 1) AS drug_exposure_id,
    person.person_id,
    COALESCE(item.concept_id, 0) AS drug_concept_id,
    CAST(given.starttime AS DATE) AS drug_exposure_start_date,
    given.starttime AS drug_exposure_start_datetime,
    CAST(CASE WHEN given.endtime >= given.starttime THEN given.endtime ELSE given.starttime END AS DATE)
        AS drug_exposure_end_date,
    CASE WHEN given.endtime >= given.starttime THEN given.endtime ELSE given.starttime END
        AS drug_exposure_end_datetime,
    CAST(given.endtime AS DATE) AS verbatim_end_date,
    concept('EHR administration record') AS drug_type_concept_id,
    CASE WHEN given.statusdescription = 'Stopped' THEN given.statusdescription END AS stop_reason,
    CASE WHEN given.amount > 0 THEN given.amount END AS quantity,
    decimal_text(given.rate) || COALESCE(' ' || given.rateuom, '') AS sig,
    0 AS route_concept_id,
    provider.provider_id,
    visit.visit_occurrence_id,
    detail.visit_detail_id,
    COALESCE(item.source_value, CAST(given.itemid AS VARCHAR)) AS drug_source_value,
    0 AS drug_source_concept_id,
    given.ordercategoryname AS route_source_value,
    given.amountuom AS dose_unit_source_value
FROM mimic3.inputevents_mv AS given
JOIN cdm.person AS person ON person.person_id = given.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = given.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(given.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = given.cgid
LEFT JOIN stage.item AS item ON item.itemid = given.itemid
WHERE given.starttime IS NOT NULL
    AND COALESCE(given.cancelreason, 0) = 0
    AND COALESCE(given.statusdescription, '') <> 'Rewritten'
    AND (COALESCE(given.amount, 1) > 0 OR given.rate > 0)

UNION ALL

SELECT
    event_id(given.row_id, 2) AS drug_exposure_id,
    person.person_id,
    COALESCE(item.concept_id, 0) AS drug_concept_id,
    CAST(given.charttime AS DATE) AS drug_exposure_start_date,
    given.charttime AS drug_exposure_start_datetime,
    CAST(given.charttime AS DATE) AS drug_exposure_end_date,
    given.charttime AS drug_exposure_end_datetime,
    CAST(NULL AS DATE) AS verbatim_end_date,
    concept('EHR administration record') AS drug_type_concept_id,
    given.stopped AS stop_reason,
    CASE WHEN given.amount > 0 THEN given.amount END AS quantity,
    decimal_text(given.rate) || COALESCE(' ' || given.rateuom, '') AS sig,
    COALESCE(route.concept_id, 0) AS route_concept_id,
    provider.provider_id,
    visit.visit_occurrence_id,
    detail.visit_detail_id,
    COALESCE(item.source_value, CAST(given.itemid AS VARCHAR)) AS drug_source_value,
    0 AS drug_source_concept_id,
    given.originalroute AS route_source_value,
    given.amountuom AS dose_unit_source_value
FROM mimic3.inputevents_cv AS given
JOIN cdm.person AS person ON person.person_id = given.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = given.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(given.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = given.cgid
LEFT JOIN stage.item AS item ON item.itemid = given.itemid
LEFT JOIN vocab.source_to_concept AS route
    ON route.source_vocabulary_id = 'mimic3 routes' AND route.source_code = UPPER(given.originalroute) AND route.nth = 0
WHERE given.charttime IS NOT NULL AND (given.amount > 0 OR given.rate > 0)

UNION ALL

SELECT
    part_id(billed.row_id, billed.tag, billed.nth) AS drug_exposure_id,
    billed.subject_id AS person_id,
    billed.concept_id AS drug_concept_id,
    CAST(billed.start_datetime AS DATE) AS drug_exposure_start_date,
    billed.start_datetime AS drug_exposure_start_datetime,
    CAST(billed.end_datetime AS DATE) AS drug_exposure_end_date,
    billed.end_datetime AS drug_exposure_end_datetime,
    CAST(NULL AS DATE) AS verbatim_end_date,
    concept('EHR billing record') AS drug_type_concept_id,
    CAST(NULL AS VARCHAR) AS stop_reason,
    CAST(NULL AS DOUBLE) AS quantity,
    CAST(NULL AS VARCHAR) AS sig,
    0 AS route_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    billed.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    billed.code AS drug_source_value,
    billed.source_concept_id AS drug_source_concept_id,
    CAST(NULL AS VARCHAR) AS route_source_value,
    CAST(NULL AS VARCHAR) AS dose_unit_source_value
FROM stage.billed AS billed
WHERE billed.domain_id = 'Drug'
