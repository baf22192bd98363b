-- What the concepts of a table are, for any `field` of any table `checked`: the table is read once and its codes are
-- counted, and only what is counted meets the vocabulary. A concept of which nobody says that it is standard is not.
SELECT
    CAST(
        SUM(CASE WHEN coded.field IS NOT NULL AND held.concept_id IS NULL THEN coded.n ELSE 0 END) AS BIGINT
    ) AS isForeignKey,
    CAST(
        SUM(CASE WHEN held.concept_id <> 0 AND held.domain_id <> coded.bound THEN coded.n ELSE 0 END) AS BIGINT
    ) AS fkDomain,
    CAST(
        SUM(CASE WHEN held.concept_id <> 0 AND held.concept_class_id <> coded.bound THEN coded.n ELSE 0 END) AS BIGINT
    ) AS fkClass,
    CAST(
        SUM(
            CASE
                WHEN held.concept_id <> 0
                    AND (COALESCE(held.standard_concept, '') <> 'S' OR COALESCE(held.invalid_reason, '') <> '')
                    THEN coded.n
                ELSE 0
            END
        ) AS BIGINT
    ) AS isStandardValidConcept,
    CAST(SUM(CASE WHEN coded.field = 0 THEN coded.n ELSE 0 END) AS BIGINT) AS standardConceptRecordCompleteness,
    CAST(SUM(CASE WHEN coded.field = 0 THEN coded.n ELSE 0 END) AS BIGINT) AS sourceConceptRecordCompleteness,
    COUNT(DISTINCT CASE WHEN coded.other = 0 THEN COALESCE(coded.field, '') END) AS sourceValueCompleteness,
    COUNT(DISTINCT COALESCE(coded.field, '')) AS sourceValueCompleteness_of
FROM (SELECT field, other, COUNT(*) AS n FROM cdm.checked GROUP BY field, other) AS coded
LEFT JOIN cdm.concept AS held ON held.concept_id = coded.field
