-- How often each concept that belongs to one sex is recorded of each sex: `held` stands for the list of such concepts,
-- `field` for the field of the table `checked` that names them.
SELECT
    checked.label AS cdm_table_name,
    CAST(checked.field AS VARCHAR) AS concept_id,
    person.gender_concept_id,
    COUNT(*) AS n
FROM cdm.checked AS checked
LEFT JOIN (SELECT person_id, MIN(gender_concept_id) AS gender_concept_id FROM cdm.person GROUP BY person_id) AS person
    ON person.person_id = checked.person_id
WHERE checked.field IN (checked.held)
GROUP BY checked.field, person.gender_concept_id
