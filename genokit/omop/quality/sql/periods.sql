-- Persons of whom two periods of observation overlap, or follow one another without a day between.
SELECT
    COUNT(
        DISTINCT CASE WHEN other.person_id IS NOT NULL THEN period.person_id END
    ) AS measureobservationperiodoverlap__observation_period,
    COUNT(DISTINCT period.person_id) AS measureobservationperiodoverlap__observation_period_of
FROM cdm.observation_period AS period
LEFT JOIN cdm.observation_period AS other
    ON other.person_id = period.person_id
    AND other.observation_period_id <> period.observation_period_id
    AND days_between(period.observation_period_end_date, other.observation_period_start_date) <= 1
    AND days_between(other.observation_period_end_date, period.observation_period_start_date) <= 1
