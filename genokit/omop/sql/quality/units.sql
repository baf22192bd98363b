-- In which units the measurements come of which units are published (`held` stands for their concepts), and how many
-- values lie below (`lower`) and above (`higher`) what is plausible in a unit.
SELECT
    CAST(measurement_concept_id AS VARCHAR) AS concept_id,
    unit_concept_id,
    COUNT(*) AS n,
    COUNT(unit_source_value) AS named,
    COUNT(CASE WHEN lower THEN 1 END) AS low,
    COUNT(CASE WHEN higher THEN 1 END) AS high
FROM cdm.measurement
WHERE measurement_concept_id IN (held) AND value_as_number IS NOT NULL
GROUP BY measurement_concept_id, unit_concept_id
