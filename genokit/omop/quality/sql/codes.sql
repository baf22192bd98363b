-- What the concepts of a table are, for any `field` of any table `checked`: the table is read once and its codes are
-- counted, and only what is counted meets the vocabulary. A concept of which nobody says that it is standard is not. No
-- text is a text of its own, which the dashboard counts once.
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
                    AND (COALESCE(held.standard_concept, '') <> 'S' OR held.invalid_reason IS NOT NULL)
                    THEN coded.n
                ELSE 0
            END
        ) AS BIGINT
    ) AS isStandardValidConcept,
    COUNT(DISTINCT CASE WHEN coded.other = 0 THEN coded.field END)
        + COALESCE(MAX(CASE WHEN coded.other = 0 AND coded.field IS NULL THEN 1 ELSE 0 END), 0)
        AS sourceValueCompleteness,
    COUNT(DISTINCT coded.field)
        + COALESCE(MAX(CASE WHEN coded.field IS NULL THEN 1 ELSE 0 END), 0) AS sourceValueCompleteness_of
FROM (SELECT field, other, COUNT(*) AS n FROM cdm.checked GROUP BY field, other) AS coded
LEFT JOIN cdm.concept AS held ON held.concept_id = coded.field
