-- FACT_RELATIONSHIP: a culture to its specimen, a susceptibility to its culture, each link in both directions.
WITH link AS (
    SELECT
        event_id(micro.row_id, 3) AS culture_id,
        event_id(micro.specimen_row, 3) AS specimen_id
    FROM stage.microbiology AS micro
    WHERE micro.row_id = micro.isolate_row
),

test AS (
    SELECT
        event_id(micro.row_id, 4) AS susceptibility_id,
        event_id(micro.isolate_row, 3) AS culture_id
    FROM stage.microbiology AS micro
    WHERE micro.ab_name IS NOT NULL
)

SELECT
    concept('Measurement domain') AS domain_concept_id_1, link.culture_id AS fact_id_1,
    concept('Specimen domain') AS domain_concept_id_2, link.specimen_id AS fact_id_2,
    concept('Measurement to Specimen') AS relationship_concept_id
FROM link

UNION ALL

SELECT
    concept('Specimen domain') AS domain_concept_id_1, link.specimen_id AS fact_id_1,
    concept('Measurement domain') AS domain_concept_id_2, link.culture_id AS fact_id_2,
    concept('Specimen to Measurement') AS relationship_concept_id
FROM link

UNION ALL

SELECT
    concept('Measurement domain') AS domain_concept_id_1, test.culture_id AS fact_id_1,
    concept('Measurement domain') AS domain_concept_id_2, test.susceptibility_id AS fact_id_2,
    concept('Parent to Child Measurement') AS relationship_concept_id
FROM test

UNION ALL

SELECT
    concept('Measurement domain') AS domain_concept_id_1, test.susceptibility_id AS fact_id_1,
    concept('Measurement domain') AS domain_concept_id_2, test.culture_id AS fact_id_2,
    concept('Child to Parent Measurement') AS relationship_concept_id
FROM test
