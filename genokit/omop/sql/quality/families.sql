-- The same for the descendants of some concepts (`held`), which count together under one name (`bound`).
SELECT
    checked.label AS cdm_table_name,
    checked.bound AS concept_id,
    person.gender_concept_id,
    COUNT(*) AS n
FROM cdm.checked AS checked
JOIN cdm.person AS person ON person.person_id = checked.person_id
JOIN (
    SELECT descendant_concept_id FROM cdm.concept_ancestor WHERE ancestor_concept_id IN (held)
    GROUP BY descendant_concept_id
) AS family ON family.descendant_concept_id = checked.field
GROUP BY person.gender_concept_id
