-- SOURCE_TO_CONCEPT_MAP: which concept each of MIMIC's own codes was given by the kit's lists.
SELECT
    given.source_code,
    given.source_concept_id,
    given.source_vocabulary_id,
    MIN(own.meaning) AS source_code_description,
    given.concept_id AS target_concept_id,
    MIN(target.vocabulary_id) AS target_vocabulary_id,
    CAST('1970-01-01' AS DATE) AS valid_start_date,
    CAST('2099-12-31' AS DATE) AS valid_end_date
FROM vocab.source_to_concept AS given
JOIN vocab.own AS own ON own.source_vocabulary_id = given.source_vocabulary_id AND own.code = given.source_code
JOIN vocab.concept AS target ON target.concept_id = given.concept_id
GROUP BY given.source_code, given.source_concept_id, given.source_vocabulary_id, given.concept_id
