-- How many rows of each domain have a standard concept, beside the share in the pipeline that this one replaces: it
-- knew genders, called every visit an emergency, wrote concept 0 for all else, and had no devices and specimens.
SELECT
    'person: gender' AS domain,
    CAST(NULL AS VARCHAR) AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN gender_concept_id <> 0 THEN 1 END) AS mapped,
    1.0 AS original
FROM cdm.person

UNION ALL

SELECT
    'person: race or ethnicity' AS domain,
    CAST(NULL AS VARCHAR) AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN race_concept_id <> 0 OR ethnicity_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.person

UNION ALL

SELECT
    'visit' AS domain,
    'visit_occurrence' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN visit_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.visit_occurrence

UNION ALL

SELECT
    'condition' AS domain,
    'condition_occurrence' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN condition_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.condition_occurrence

UNION ALL

SELECT
    'procedure' AS domain,
    'procedure_occurrence' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN procedure_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.procedure_occurrence

UNION ALL

SELECT
    'drug' AS domain,
    'drug_exposure' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN drug_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.drug_exposure

UNION ALL

SELECT
    'device' AS domain,
    'device_exposure' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN device_concept_id <> 0 THEN 1 END) AS mapped,
    NULL AS original
FROM cdm.device_exposure

UNION ALL

SELECT
    'measurement' AS domain,
    'measurement' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN measurement_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.measurement

UNION ALL

SELECT
    'measurement: unit' AS domain,
    CAST(NULL AS VARCHAR) AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN unit_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.measurement
WHERE unit_source_value IS NOT NULL

UNION ALL

SELECT
    'observation' AS domain,
    'observation' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN observation_concept_id <> 0 THEN 1 END) AS mapped,
    0.0 AS original
FROM cdm.observation

UNION ALL

SELECT
    'specimen' AS domain,
    'specimen' AS cdm_table,
    COUNT(*) AS rows,
    COUNT(CASE WHEN specimen_concept_id <> 0 THEN 1 END) AS mapped,
    NULL AS original
FROM cdm.specimen
