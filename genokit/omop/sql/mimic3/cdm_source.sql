-- CDM_SOURCE: what this database is. Both dates are MIMIC-III's own release: the day of a run would make two runs
-- over the same data differ.
SELECT
    'MIMIC-III' AS cdm_source_name,
    'MIMIC3' AS cdm_source_abbreviation,
    'MIT Laboratory for Computational Physiology' AS cdm_holder,
    'Intensive care at one hospital in Boston, 2001 to 2012; dates shifted a patient at a time' AS source_description,
    'https://mimic.mit.edu/docs/iii' AS source_documentation_reference,
    'genokit.omop' AS cdm_etl_reference,
    CAST('2016-09-04' AS DATE) AS source_release_date,
    CAST('2016-09-04' AS DATE) AS cdm_release_date,
    'v5.4' AS cdm_version,
    concept('OMOP CDM 5.4') AS cdm_version_concept_id,
    MAX(vocabulary_version) AS vocabulary_version
FROM vocab.vocabulary
WHERE vocabulary_id = 'None'
