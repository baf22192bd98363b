-- What one pass over a table counts. Each column here is what a check means, for any `field` of any table `checked`,
-- held against a `bound`, another field (`other`) or the key of a table `target`; checks.py puts the names in their
-- place. What is joined has one row a key, so that nothing is multiplied. Days are compared as numbers (20501231),
-- as years, months and days of birth need not make a date that exists; where only the year is known, what must come
-- after birth (plausibleTemporalAfter) is held against the first of June, as the dashboard does it.
SELECT
    COUNT(*) AS rows,
    COUNT(checked.field) AS filled,
    COUNT(CASE WHEN checked.field IS NOT NULL AND held.other IS NULL THEN 1 END) AS isForeignKey,
    COUNT(
        CASE WHEN checked.field = 0 OR (checked.field IS NULL AND checked.other IS NOT NULL) THEN 1 END
    ) AS standardConceptRecordCompleteness,
    COUNT(
        CASE WHEN checked.field IS NOT NULL OR checked.other IS NOT NULL THEN 1 END
    ) AS standardConceptRecordCompleteness_of,
    COUNT(
        CASE WHEN checked.field = 0 OR (checked.field IS NULL AND checked.other IS NOT NULL) THEN 1 END
    ) AS sourceConceptRecordCompleteness,
    COUNT(
        CASE WHEN checked.field IS NOT NULL OR checked.other IS NOT NULL THEN 1 END
    ) AS sourceConceptRecordCompleteness_of,
    COUNT(CASE WHEN checked.field < checked.bound THEN 1 END) AS plausibleValueLow,
    COUNT(CASE WHEN checked.field > checked.bound THEN 1 END) AS plausibleValueHigh,
    COUNT(CASE WHEN CAST(checked.field AS DATE) < checked.bound THEN 1 END) AS plausibleValueLow_day,
    COUNT(CASE WHEN CAST(checked.field AS DATE) > checked.bound THEN 1 END) AS plausibleValueHigh_day,
    COUNT(
        CASE WHEN CAST(checked.field AS DATE) > CAST(checked.other AS DATE) THEN 1 END
    ) AS plausibleStartBeforeEnd,
    COUNT(
        CASE WHEN checked.field IS NOT NULL AND checked.other IS NOT NULL THEN 1 END
    ) AS plausibleStartBeforeEnd_of,
    COUNT(CASE WHEN CAST(checked.field AS DATE) < CAST(checked.other AS DATE) THEN 1 END) AS plausibleTemporalAfter,
    COUNT(
        CASE
            WHEN EXTRACT(YEAR FROM checked.field) * 10000
                + EXTRACT(MONTH FROM checked.field) * 100
                + EXTRACT(DAY FROM checked.field) < person.born_about
                THEN 1
        END
    ) AS plausibleTemporalAfter_birth,
    COUNT(
        CASE
            WHEN EXTRACT(YEAR FROM checked.field) * 10000
                + EXTRACT(MONTH FROM checked.field) * 100
                + EXTRACT(DAY FROM checked.field) < person.born
                THEN 1
        END
    ) AS plausibleAfterBirth,
    COUNT(CASE WHEN days_between(death.death_date, checked.field) > 60 THEN 1 END) AS plausibleBeforeDeath,
    COUNT(
        CASE WHEN death.person_id IS NOT NULL AND checked.field IS NOT NULL THEN 1 END
    ) AS plausibleBeforeDeath_of,
    COUNT(CASE WHEN days_between(death.death_date, checked.field) > 60 THEN 1 END) AS plausibleDuringLife,
    COUNT(death.person_id) AS plausibleDuringLife_of,
    COUNT(
        CASE
            WHEN days_between(checked.field, visit.start_date) > 7 OR days_between(visit.end_date, checked.field) > 7
                THEN 1
        END
    ) AS withinVisitDates,
    COUNT(visit.visit_occurrence_id) AS withinVisitDates_of
FROM cdm.checked AS checked
LEFT JOIN (
    SELECT
        person_id,
        MIN(
            COALESCE(
                EXTRACT(YEAR FROM birth_datetime) * 10000
                + EXTRACT(MONTH FROM birth_datetime) * 100
                + EXTRACT(DAY FROM birth_datetime),
                year_of_birth * 10000 + 601
            )
        ) AS born_about,
        MIN(
            COALESCE(
                EXTRACT(YEAR FROM birth_datetime) * 10000
                + EXTRACT(MONTH FROM birth_datetime) * 100
                + EXTRACT(DAY FROM birth_datetime),
                year_of_birth * 10000 + COALESCE(month_of_birth, 1) * 100 + COALESCE(day_of_birth, 1)
            )
        ) AS born
    FROM cdm.person
    GROUP BY person_id
) AS person ON person.person_id = checked.person_id
LEFT JOIN (
    SELECT person_id, MIN(death_date) AS death_date FROM cdm.death GROUP BY person_id
) AS death ON death.person_id = checked.person_id
LEFT JOIN (
    SELECT visit_occurrence_id, MIN(visit_start_date) AS start_date, MAX(visit_end_date) AS end_date
    FROM cdm.visit_occurrence
    GROUP BY visit_occurrence_id
) AS visit ON visit.visit_occurrence_id = checked.visit_occurrence_id
LEFT JOIN (SELECT other FROM cdm.target GROUP BY other) AS held ON held.other = checked.field
