-- PROVIDER: the caregivers who charted; provider_id is MIMIC's cgid. Their profession is all that is known of them.
SELECT
    cg.cgid AS provider_id,
    0 AS specialty_concept_id,
    CAST(cg.cgid AS VARCHAR) AS provider_source_value,
    COALESCE(cg.description, cg.label) AS specialty_source_value,
    0 AS specialty_source_concept_id
FROM mimic3.caregivers AS cg
