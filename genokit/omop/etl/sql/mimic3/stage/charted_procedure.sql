-- What nurses charted as done: the rows of PROCEDUREEVENTS_MV, of whatever domain their item is (tag 11), and the days
-- in DATETIMEEVENTS on which a line was put in or cared for (tag 6).
--
-- Rows that were cancelled did not happen, and those marked Rewritten stand once more elsewhere: both are left out. A
-- row that says the same once more (person, item, begin, end and place) is left out, too; two X-rays of one day are
-- two. A charted day is the day of the procedure, not that of the charting, and stands once (stage/charted_day.sql).
WITH first AS (
    SELECT MIN(done.row_id) AS row_id
    FROM mimic3.procedureevents_mv AS done
    WHERE done.starttime IS NOT NULL
        AND COALESCE(done.cancelreason, 0) = 0
        AND COALESCE(done.statusdescription, '') <> 'Rewritten'
    GROUP BY done.subject_id, done.itemid, done.starttime, done.endtime, done.location
)

SELECT
    event_id(done.row_id, 11) AS id,
    person.person_id,
    visit.visit_occurrence_id,
    detail.visit_detail_id,
    provider.provider_id,
    done.starttime AS start_datetime,
    CASE WHEN done.endtime >= done.starttime THEN done.endtime ELSE done.starttime END AS end_datetime,
    done.value,
    done.valueuom AS unit,
    done.location,
    COALESCE(item.source_value, CAST(done.itemid AS VARCHAR)) AS source_value,
    COALESCE(item.concept_id, 0) AS concept_id,
    COALESCE(item.domain_id, 'Procedure') AS domain_id
FROM mimic3.procedureevents_mv AS done
JOIN first ON first.row_id = done.row_id
JOIN cdm.person AS person ON person.person_id = done.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = done.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(done.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = done.cgid
LEFT JOIN stage.item AS item ON item.itemid = done.itemid

UNION ALL

SELECT
    event_id(dated.row_id, 6) AS id,
    dated.person_id,
    dated.visit_occurrence_id,
    dated.visit_detail_id,
    dated.provider_id,
    dated.value AS start_datetime,
    dated.value AS end_datetime,
    CAST(NULL AS DOUBLE) AS value,
    CAST(NULL AS VARCHAR) AS unit,
    CAST(NULL AS VARCHAR) AS location,
    dated.source_value,
    dated.concept_id,
    'Procedure' AS domain_id
FROM stage.charted_day AS dated
WHERE dated.is_procedure = 1
