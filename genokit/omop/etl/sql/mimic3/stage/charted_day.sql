-- The days that nurses charted in DATETIMEEVENTS, each once: a day is charted again in every shift. The row that was
-- charted first stands for all of the same person, item and day.
--
-- The day of a procedure, such as putting in a line, is a procedure (is_procedure 1) where it lies within the visit
-- that it was charted in. A line that was put in before, or a day after the discharge, was not seen here: what the
-- nurse was told of it is an observation of the day of charting, as are the days of other items.
WITH charted AS (
    SELECT
        dated.row_id,
        person.person_id,
        visit.visit_occurrence_id,
        detail.visit_detail_id,
        provider.provider_id,
        dated.itemid,
        dated.charttime,
        dated.value,
        dated.valueuom,
        COALESCE(item.source_value, CAST(dated.itemid AS VARCHAR)) AS source_value,
        COALESCE(item.concept_id, 0) AS concept_id,
        CASE
            WHEN item.domain_id = 'Procedure'
                AND CAST(dated.value AS DATE) BETWEEN COALESCE(visit.visit_start_date, CAST(dated.charttime AS DATE))
                    AND COALESCE(visit.visit_end_date, CAST(dated.charttime AS DATE))
                THEN 1
            ELSE 0
        END AS is_procedure
    FROM mimic3.datetimeevents AS dated
    JOIN cdm.person AS person ON person.person_id = dated.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = dated.hadm_id
    LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(dated.icustay_id, 0)
    LEFT JOIN cdm.provider AS provider ON provider.provider_id = dated.cgid
    LEFT JOIN stage.item AS item ON item.itemid = dated.itemid
    WHERE dated.charttime IS NOT NULL AND COALESCE(dated.error, 0) = 0
),

-- What has no value says only that it was charted: once a day.
told AS (
    SELECT
        charted.row_id, charted.person_id, charted.itemid, charted.is_procedure, charted.charttime,
        CASE WHEN charted.value IS NULL THEN 1 ELSE 0 END AS is_empty,
        CAST(COALESCE(charted.value, charted.charttime) AS DATE) AS day,
        MIN(charted.charttime) OVER (
            PARTITION BY charted.person_id, charted.itemid, charted.is_procedure,
                CASE WHEN charted.value IS NULL THEN 1 ELSE 0 END,
                CAST(COALESCE(charted.value, charted.charttime) AS DATE)
        ) AS first_charttime
    FROM charted
),

first AS (
    SELECT MIN(told.row_id) AS row_id
    FROM told
    WHERE told.charttime = told.first_charttime
    GROUP BY told.person_id, told.itemid, told.is_procedure, told.is_empty, told.day
)

SELECT
    charted.row_id,
    charted.person_id,
    charted.visit_occurrence_id,
    charted.visit_detail_id,
    charted.provider_id,
    charted.charttime,
    charted.value,
    charted.valueuom,
    charted.source_value,
    charted.concept_id,
    charted.is_procedure
FROM charted
JOIN first ON first.row_id = charted.row_id
