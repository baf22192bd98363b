-- Of how many persons with a condition that is mapped no era of any condition was made.
SELECT
    COUNT(CASE WHEN era.person_id IS NULL THEN 1 END) AS measureconditioneracompleteness__condition_era,
    COUNT(*) AS measureconditioneracompleteness__condition_era_of
FROM (
    SELECT person_id FROM cdm.condition_occurrence
    WHERE condition_concept_id <> 0 AND person_id IS NOT NULL
    GROUP BY person_id
) AS ill
LEFT JOIN (SELECT person_id FROM cdm.condition_era GROUP BY person_id) AS era ON era.person_id = ill.person_id
