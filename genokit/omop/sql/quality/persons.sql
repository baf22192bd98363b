-- Of how many persons each table says something; `checked` stands for any table with a person_id.
SELECT
    COUNT(*) AS rows,
    COUNT(CASE WHEN checked.person_id IS NULL THEN 1 END) AS measurePersonCompleteness,
    COUNT(
        CASE WHEN condition_occurrence.person_id IS NOT NULL AND condition_era.person_id IS NULL THEN 1 END
    ) AS measureConditionEraCompleteness,
    COUNT(condition_occurrence.person_id) AS measureConditionEraCompleteness_of
FROM (SELECT person_id FROM cdm.person GROUP BY person_id) AS person
LEFT JOIN (SELECT person_id FROM cdm.checked GROUP BY person_id) AS checked
    ON checked.person_id = person.person_id
LEFT JOIN (SELECT person_id FROM cdm.condition_occurrence GROUP BY person_id) AS condition_occurrence
    ON condition_occurrence.person_id = person.person_id
LEFT JOIN (SELECT person_id FROM cdm.condition_era GROUP BY person_id) AS condition_era
    ON condition_era.person_id = person.person_id
