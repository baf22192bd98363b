-- CONDITION_ERA: occurrences of the same condition in a person that lie no more than 30 days apart, as one span.
--
-- What began on the same day is put together first: the order of days then has no ties, which every engine, and every
-- window of one engine, could break in another way.
WITH occurrence AS (
    SELECT
        person_id,
        condition_concept_id,
        condition_start_date AS start_date,
        MAX(COALESCE(condition_end_date, condition_start_date)) AS end_date,
        COUNT(*) AS occurrences
    FROM cdm.condition_occurrence
    WHERE condition_concept_id <> 0
    GROUP BY person_id, condition_concept_id, condition_start_date
),

following AS (
    SELECT
        person_id, condition_concept_id, start_date, end_date, occurrences,
        MAX(end_date) OVER (
            PARTITION BY person_id, condition_concept_id ORDER BY start_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS covered_until
    FROM occurrence
),

spanned AS (
    SELECT
        person_id, condition_concept_id, start_date, end_date, occurrences,
        SUM(CASE WHEN days_between(covered_until, start_date) <= 30 THEN 0 ELSE 1 END) OVER (
            PARTITION BY person_id, condition_concept_id ORDER BY start_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS era
    FROM following
)

SELECT
    hash_id(
        'condition ' || CAST(person_id AS VARCHAR) || ' ' || CAST(condition_concept_id AS VARCHAR) || ' '
        || CAST(MIN(start_date) AS VARCHAR)
    ) AS condition_era_id,
    person_id,
    condition_concept_id,
    MIN(start_date) AS condition_era_start_date,
    MAX(end_date) AS condition_era_end_date,
    SUM(occurrences) AS condition_occurrence_count
FROM spanned
GROUP BY person_id, condition_concept_id, era
