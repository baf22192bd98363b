-- DRUG_ERA: exposures of a person to the same ingredient that lie no more than 30 days apart, as one span.
--
-- The vocabulary's ancestors tell a product's ingredients; what is an ingredient itself needs no download.
-- gap_days are the days inside the span on which nothing was given or prescribed. What began on the same day is put
-- together first: the order of days then has no ties.
WITH ingredient AS (
    SELECT related.descendant_concept_id AS drug_concept_id, parent.concept_id AS ingredient_concept_id
    FROM vocab.concept_ancestor AS related
    JOIN vocab.concept AS parent ON parent.concept_id = related.ancestor_concept_id
    WHERE parent.concept_class_id = 'Ingredient' AND parent.standard_concept = 'S'
    UNION ALL
    SELECT concept_id AS drug_concept_id, concept_id AS ingredient_concept_id
    FROM vocab.concept
    WHERE concept_class_id = 'Ingredient' AND standard_concept = 'S'
),

exposure AS (
    SELECT
        drug.person_id,
        ingredient.ingredient_concept_id AS drug_concept_id,
        drug.drug_exposure_start_date AS start_date,
        MAX(drug.drug_exposure_end_date) AS end_date,
        COUNT(DISTINCT drug.drug_exposure_id) AS exposures
    FROM cdm.drug_exposure AS drug
    JOIN ingredient ON ingredient.drug_concept_id = drug.drug_concept_id
    GROUP BY drug.person_id, ingredient.ingredient_concept_id, drug.drug_exposure_start_date
),

following AS (
    SELECT
        person_id, drug_concept_id, start_date, end_date, exposures,
        MAX(end_date) OVER (
            PARTITION BY person_id, drug_concept_id ORDER BY start_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS covered_until
    FROM exposure
),

spanned AS (
    SELECT
        person_id, drug_concept_id, start_date, end_date, exposures,
        days_between(covered_until, start_date) AS days_since,
        SUM(CASE WHEN days_between(covered_until, start_date) <= 30 THEN 0 ELSE 1 END) OVER (
            PARTITION BY person_id, drug_concept_id ORDER BY start_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS era
    FROM following
)

SELECT
    hash_id(
        'drug ' || CAST(person_id AS VARCHAR) || ' ' || CAST(drug_concept_id AS VARCHAR) || ' '
        || CAST(MIN(start_date) AS VARCHAR)
    ) AS drug_era_id,
    person_id,
    drug_concept_id,
    MIN(start_date) AS drug_era_start_date,
    MAX(end_date) AS drug_era_end_date,
    SUM(exposures) AS drug_exposure_count,
    SUM(CASE WHEN days_since BETWEEN 2 AND 30 THEN days_since - 1 ELSE 0 END) AS gap_days
FROM spanned
GROUP BY person_id, drug_concept_id, era
