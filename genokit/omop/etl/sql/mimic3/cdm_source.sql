-- CDM_SOURCE: what this database is, and whether anybody is behind it. Both dates are MIMIC-III's own release: the day
-- of a run would make two runs over the same data differ.
SELECT
    CASE WHEN source.synthetic = 1 THEN 'Synthetic MIMIC-III' ELSE 'MIMIC-III' END AS cdm_source_name,
    CASE WHEN source.synthetic = 1 THEN 'MIMIC3 synthetic' ELSE 'MIMIC3' END AS cdm_source_abbreviation,
    CASE WHEN source.synthetic = 1 THEN 'genokit' ELSE 'MIT Laboratory for Computational Physiology' END AS cdm_holder,
    CASE
        WHEN source.synthetic = 1 THEN 'Made of chance; no person is behind it, and nothing may be learnt from it'
        ELSE 'Intensive care at one hospital in Boston, 2001 to 2012; dates shifted a patient at a time'
    END AS source_description,
    'https://mimic.mit.edu/docs/iii' AS source_documentation_reference,
    'genokit.omop' AS cdm_etl_reference,
    CAST('2016-09-04' AS DATE) AS source_release_date,
    CAST('2016-09-04' AS DATE) AS cdm_release_date,
    'v5.4' AS cdm_version,
    concept('OMOP CDM 5.4') AS cdm_version_concept_id,
    known.vocabulary_version
FROM mimic3.source AS source
LEFT JOIN vocab.vocabulary AS known ON known.vocabulary_id = 'None'
