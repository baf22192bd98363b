-- CONDITION_ERA: occurrences of the same condition in a person that lie no more than 30 days apart, as one span.
WITH occurrence AS (
    SELECT
        person_id,
        condition_concept_id,
        condition_start_date AS start_date,
        COALESCE(condition_end_date, condition_start_date) AS end_date
    FROM cdm.condition_occurrence
    WHERE condition_concept_id <> 0
),

following AS (
    SELECT
        person_id, condition_concept_id, start_date, end_date,
        MAX(end_date) OVER (
            PARTITION BY person_id, condition_concept_id ORDER BY start_date, end_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS covered_until
    FROM occurrence
),

spanned AS (
    SELECT
        person_id, condition_concept_id, start_date, end_date,
        SUM(CASE WHEN days_between(covered_until, start_date) <= 30 THEN 0 ELSE 1 END) OVER (
            PARTITION BY person_id, condition_concept_id ORDER BY start_date, end_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS era
    FROM following
)

SELECT
    hash_id(
        'condition ' || CAST(person_id AS VARCHAR) || ' ' || CAST(condition_concept_id AS VARCHAR) || ' '
        || CAST(era AS VARCHAR)
    ) AS condition_era_id,
    person_id,
    condition_concept_id,
    MIN(start_date) AS condition_era_start_date,
    MAX(end_date) AS condition_era_end_date,
    COUNT(*) AS condition_occurrence_count
FROM spanned
GROUP BY person_id, condition_concept_id, era
