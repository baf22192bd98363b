-- MEASUREMENT: laboratory (tag 0), charts (1), outputs (2), cultures (3) and the antibiotics that their isolates were
-- tested against (4), and what was billed (8 to 10) or charted as a procedure (11) and measures something.
--
-- Each source row gives at most one row a tag: nothing is joined by admission to what an admission has several of. One
-- laboratory result in five belongs to no admission: it was taken from an outpatient, and has no visit.
--
-- Left out: rows marked as errors, chart rows without any value, and chart rows whose item is no measurement (by its
-- concept's domain, or unmapped and not a number), which observation.sql takes. Chart rows of laboratory items repeat
-- LABEVENTS; they are kept, and their type (EHR, not Lab) tells them apart.
--
-- A result that is only bounded, such as '<0.1', gives its number and the operator; other texts are kept as they are,
-- and get a concept where it is known (positive, sinus rhythm). Times are of 24 hours.
WITH measured AS (
    SELECT
        event_id(lab.row_id, 0) AS id,
        lab.subject_id, lab.hadm_id, CAST(NULL AS BIGINT) AS icustay_id, CAST(NULL AS BIGINT) AS cgid,
        lab.itemid, lab.charttime AS moment, lab.value, lab.valuenum, lab.valueuom,
        concept('Lab') AS type_concept_id
    FROM mimic3.labevents AS lab
    WHERE lab.charttime IS NOT NULL

    UNION ALL

    SELECT
        event_id(chart.row_id, 1) AS id,
        chart.subject_id, chart.hadm_id, chart.icustay_id, chart.cgid,
        chart.itemid, chart.charttime AS moment, chart.value, chart.valuenum, chart.valueuom,
        concept('EHR') AS type_concept_id
    FROM mimic3.chartevents AS chart
    LEFT JOIN stage.item AS item ON item.itemid = chart.itemid
    WHERE chart.charttime IS NOT NULL
        AND COALESCE(chart.error, 0) = 0
        AND (chart.value IS NOT NULL OR chart.valuenum IS NOT NULL)
        AND COALESCE(item.domain_id, CASE WHEN chart.valuenum IS NOT NULL THEN 'Measurement' ELSE 'Observation' END)
            = 'Measurement'

    UNION ALL

    SELECT
        event_id(output.row_id, 2) AS id,
        output.subject_id, output.hadm_id, output.icustay_id, output.cgid,
        output.itemid, output.charttime AS moment,
        CAST(NULL AS VARCHAR) AS value, output.value AS valuenum, output.valueuom,
        concept('EHR') AS type_concept_id
    FROM mimic3.outputevents AS output
    WHERE output.charttime IS NOT NULL AND COALESCE(output.iserror, 0) = 0
)

SELECT
    measured.id AS measurement_id,
    person.person_id,
    COALESCE(item.concept_id, 0) AS measurement_concept_id,
    CAST(measured.moment AS DATE) AS measurement_date,
    measured.moment AS measurement_datetime,
    clock_time(measured.moment) AS measurement_time,
    measured.type_concept_id AS measurement_type_concept_id,
    operator_of(TRIM(measured.value)) AS operator_concept_id,
    COALESCE(measured.valuenum, bound_of(TRIM(measured.value)), number_of(measured.value)) AS value_as_number,
    answer.concept_id AS value_as_concept_id,
    unit.concept_id AS unit_concept_id,
    provider.provider_id,
    visit.visit_occurrence_id,
    detail.visit_detail_id,
    COALESCE(item.source_value, CAST(measured.itemid AS VARCHAR)) AS measurement_source_value,
    COALESCE(item.source_concept_id, 0) AS measurement_source_concept_id,
    measured.valueuom AS unit_source_value,
    measured.value AS value_source_value
FROM measured
JOIN cdm.person AS person ON person.person_id = measured.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = measured.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(measured.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = measured.cgid
LEFT JOIN stage.item AS item ON item.itemid = measured.itemid
LEFT JOIN vocab.source_to_concept AS unit
    ON unit.source_vocabulary_id = 'mimic3 units' AND unit.source_code = UPPER(TRIM(measured.valueuom)) AND unit.nth = 0
LEFT JOIN vocab.source_to_concept AS answer
    ON answer.source_vocabulary_id = 'mimic3 values' AND answer.source_code = UPPER(TRIM(measured.value))
    AND answer.nth = 0

UNION ALL

-- A culture: what was cultured gives the concept, what grew gives the value. An isolate counts once.
SELECT
    event_id(micro.row_id, 3) AS measurement_id,
    micro.subject_id AS person_id,
    COALESCE(culture.concept_id, 0) AS measurement_concept_id,
    CAST(micro.taken AS DATE) AS measurement_date,
    micro.taken AS measurement_datetime,
    clock_time(micro.taken) AS measurement_time,
    concept('Lab') AS measurement_type_concept_id,
    CAST(NULL AS BIGINT) AS operator_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    organism.concept_id AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS unit_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    micro.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    CAST(micro.spec_itemid AS VARCHAR) || COALESCE(' ' || micro.spec_type_desc, '') AS measurement_source_value,
    0 AS measurement_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    micro.org_name AS value_source_value
FROM stage.microbiology AS micro
LEFT JOIN vocab.source_to_concept AS culture
    ON culture.source_vocabulary_id = 'mimic3 cultures' AND culture.source_code = CAST(micro.spec_itemid AS VARCHAR)
    AND culture.nth = 0
LEFT JOIN stage.item AS organism ON organism.itemid = micro.org_itemid AND organism.concept_id <> 0
WHERE micro.row_id = micro.isolate_row

UNION ALL

-- A susceptibility: the antibiotic gives the concept, S, I or R the value, and the dilution the number.
SELECT
    event_id(micro.row_id, 4) AS measurement_id,
    micro.subject_id AS person_id,
    COALESCE(antibiotic.concept_id, 0) AS measurement_concept_id,
    CAST(micro.taken AS DATE) AS measurement_date,
    micro.taken AS measurement_datetime,
    clock_time(micro.taken) AS measurement_time,
    concept('Lab') AS measurement_type_concept_id,
    operator_of(TRIM(micro.dilution_comparison)) AS operator_concept_id,
    micro.dilution_value AS value_as_number,
    answer.concept_id AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS unit_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    micro.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    COALESCE(CAST(micro.ab_itemid AS VARCHAR) || ' ', '') || micro.ab_name AS measurement_source_value,
    0 AS measurement_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    COALESCE(micro.interpretation, '') || COALESCE(' ' || micro.dilution_text, '') AS value_source_value
FROM stage.microbiology AS micro
LEFT JOIN stage.item AS antibiotic ON antibiotic.itemid = micro.ab_itemid
LEFT JOIN vocab.source_to_concept AS answer
    ON answer.source_vocabulary_id = 'mimic3 values' AND answer.source_code = UPPER(TRIM(micro.interpretation))
    AND answer.nth = 0
WHERE micro.ab_name IS NOT NULL

UNION ALL

SELECT
    part_id(billed.row_id, billed.tag, billed.nth) AS measurement_id,
    billed.subject_id AS person_id,
    billed.concept_id AS measurement_concept_id,
    CAST(billed.start_datetime AS DATE) AS measurement_date,
    billed.start_datetime AS measurement_datetime,
    clock_time(billed.start_datetime) AS measurement_time,
    concept('EHR billing record') AS measurement_type_concept_id,
    CAST(NULL AS BIGINT) AS operator_concept_id,
    CAST(NULL AS DOUBLE) AS value_as_number,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS unit_concept_id,
    CAST(NULL AS BIGINT) AS provider_id,
    billed.visit_occurrence_id,
    CAST(NULL AS BIGINT) AS visit_detail_id,
    billed.code AS measurement_source_value,
    billed.source_concept_id AS measurement_source_concept_id,
    CAST(NULL AS VARCHAR) AS unit_source_value,
    CAST(NULL AS VARCHAR) AS value_source_value
FROM stage.billed AS billed
WHERE billed.domain_id = 'Measurement'

UNION ALL

SELECT
    charted.id AS measurement_id,
    charted.person_id,
    charted.concept_id AS measurement_concept_id,
    CAST(charted.start_datetime AS DATE) AS measurement_date,
    charted.start_datetime AS measurement_datetime,
    clock_time(charted.start_datetime) AS measurement_time,
    concept('EHR') AS measurement_type_concept_id,
    CAST(NULL AS BIGINT) AS operator_concept_id,
    charted.value AS value_as_number,
    CAST(NULL AS BIGINT) AS value_as_concept_id,
    CAST(NULL AS BIGINT) AS unit_concept_id,
    charted.provider_id,
    charted.visit_occurrence_id,
    charted.visit_detail_id,
    charted.source_value AS measurement_source_value,
    0 AS measurement_source_concept_id,
    charted.unit AS unit_source_value,
    CAST(NULL AS VARCHAR) AS value_source_value
FROM stage.charted_procedure AS charted
WHERE charted.domain_id = 'Measurement'
