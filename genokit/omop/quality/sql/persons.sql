-- Of how many persons each table says something; `checked` stands for any table with a person_id.
SELECT
    COUNT(*) AS rows,
    COUNT(CASE WHEN checked.person_id IS NULL THEN 1 END) AS measurePersonCompleteness
FROM (SELECT person_id FROM cdm.person GROUP BY person_id) AS person
LEFT JOIN (SELECT person_id FROM cdm.checked GROUP BY person_id) AS checked
    ON checked.person_id = person.person_id
