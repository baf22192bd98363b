-- In which units the records of some concepts come (`held` lists the concepts, `field` of the table `checked` names
-- them), and how many lie below (`lower`) and above (`higher`) what is plausible in a unit.
SELECT
    checked.label AS cdm_table_name,
    CAST(checked.field AS VARCHAR) AS concept_id,
    checked.unit_concept_id,
    COUNT(*) AS n,
    COUNT(checked.value_as_number) AS valued,
    COUNT(CASE WHEN lower THEN 1 END) AS low,
    COUNT(CASE WHEN higher THEN 1 END) AS high
FROM cdm.checked AS checked
WHERE checked.field IN (checked.held)
GROUP BY checked.field, checked.unit_concept_id
