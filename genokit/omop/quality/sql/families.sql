-- The same for the descendants of some concepts (`held`), which count together under one name (`bound`): as with the
-- dashboard, once for each of the concepts that is above.
SELECT
    checked.label AS cdm_table_name,
    checked.bound AS concept_id,
    person.gender_concept_id,
    COUNT(*) AS n
FROM cdm.checked AS checked
LEFT JOIN (SELECT person_id, MIN(gender_concept_id) AS gender_concept_id FROM cdm.person GROUP BY person_id) AS person
    ON person.person_id = checked.person_id
JOIN (
    SELECT descendant_concept_id FROM cdm.concept_ancestor WHERE ancestor_concept_id IN (held)
) AS family ON family.descendant_concept_id = checked.field
GROUP BY person.gender_concept_id
