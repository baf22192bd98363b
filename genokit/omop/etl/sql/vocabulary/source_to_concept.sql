-- What each code of the source means: one row a code and standard concept, numbered (nth) where a code has several.
--
-- The kit's own lists (vocab.own) need no download. Where there is one, their concepts follow its 'Maps to', so that
-- a concept which was replaced since leads to its successor. The codes of ICD-9, CPT, HCPCS, NDC and LOINC come from
-- the download alone. Dots are left out, as MIMIC leaves them out of ICD-9. Concept 0 means: known, but not mapped.
WITH standard AS (
    SELECT link.concept_id_1 AS from_id, target.concept_id, target.domain_id
    FROM vocab.concept_relationship AS link
    JOIN vocab.concept AS target
        ON target.concept_id = link.concept_id_2 AND target.standard_concept = 'S'
    WHERE link.relationship_id = 'Maps to' AND link.invalid_reason IS NULL
),

mapped AS (
    SELECT
        own.source_vocabulary_id,
        own.code AS source_code,
        0 AS source_concept_id,
        COALESCE(standard.concept_id, own.concept_id) AS concept_id,
        COALESCE(standard.domain_id, own.domain_id) AS domain_id
    FROM vocab.own AS own
    LEFT JOIN standard ON standard.from_id = own.concept_id

    UNION ALL

    SELECT
        source.vocabulary_id AS source_vocabulary_id,
        REPLACE(source.concept_code, '.', '') AS source_code,
        source.concept_id AS source_concept_id,
        COALESCE(standard.concept_id, 0) AS concept_id,
        COALESCE(standard.domain_id, source.domain_id) AS domain_id
    FROM vocab.concept AS source
    LEFT JOIN standard ON standard.from_id = source.concept_id
    WHERE source.vocabulary_id IN ('ICD9CM', 'ICD9Proc', 'CPT4', 'HCPCS', 'NDC', 'LOINC')
)

SELECT
    source_vocabulary_id,
    source_code,
    source_concept_id,
    concept_id,
    domain_id,
    ROW_NUMBER() OVER (
        PARTITION BY source_vocabulary_id, source_code ORDER BY concept_id, source_concept_id, domain_id
    ) - 1 AS nth
FROM mapped
GROUP BY source_vocabulary_id, source_code, source_concept_id, concept_id, domain_id
