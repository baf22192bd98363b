-- The concepts of the kit's own lists that no download brought, with words of our own for names: what the tables of
-- a CDM without a download point at. Their vocabulary is called genokit, as the official names are OHDSI's.
SELECT
    own.concept_id,
    MIN(CASE WHEN own.source_vocabulary_id = 'mimic3 constants' THEN own.code ELSE own.meaning END) AS concept_name,
    MIN(own.domain_id) AS domain_id,
    'genokit' AS vocabulary_id,
    CASE WHEN MIN(own.domain_id) = 'Drug' THEN 'Ingredient' ELSE 'Undefined' END AS concept_class_id,
    'S' AS standard_concept,
    CAST(own.concept_id AS VARCHAR) AS concept_code,
    CAST('1970-01-01' AS DATE) AS valid_start_date,
    CAST('2099-12-31' AS DATE) AS valid_end_date
FROM vocab.own AS own
LEFT JOIN vocab.concept AS known ON known.concept_id = own.concept_id
WHERE known.concept_id IS NULL
GROUP BY own.concept_id
