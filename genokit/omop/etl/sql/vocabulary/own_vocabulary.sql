-- The vocabulary called genokit, and where there is no download the row that says which version of the vocabularies
-- this is (Athena names that row None).
SELECT
    'genokit' AS vocabulary_id,
    'Concepts in the words of genokit, or of public maps' AS vocabulary_name,
    'genokit' AS vocabulary_reference,
    '1' AS vocabulary_version,
    0 AS vocabulary_concept_id

UNION ALL

SELECT
    'None' AS vocabulary_id,
    'No vocabulary was downloaded' AS vocabulary_name,
    'genokit' AS vocabulary_reference,
    'genokit 1' AS vocabulary_version,
    0 AS vocabulary_concept_id
FROM (SELECT COUNT(*) AS n FROM vocab.vocabulary WHERE vocabulary_id = 'None') AS downloaded
WHERE downloaded.n = 0
