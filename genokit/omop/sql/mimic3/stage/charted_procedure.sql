-- What nurses charted as done: the rows of PROCEDUREEVENTS_MV, of whatever domain their item is (tag 11), and the days
-- in DATETIMEEVENTS on which a line was put in or cared for (tag 6).
--
-- Rows that were cancelled did not happen, and those marked Rewritten stand once more elsewhere: both are left out. A
-- charted day is the day of the procedure, not that of the charting; days of other items are observations.
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
JOIN cdm.person AS person ON person.person_id = done.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = done.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(done.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = done.cgid
LEFT JOIN stage.item AS item ON item.itemid = done.itemid
WHERE done.starttime IS NOT NULL
    AND COALESCE(done.cancelreason, 0) = 0
    AND COALESCE(done.statusdescription, '') <> 'Rewritten'

UNION ALL

SELECT
    event_id(dated.row_id, 6) AS id,
    person.person_id,
    visit.visit_occurrence_id,
    detail.visit_detail_id,
    provider.provider_id,
    dated.value AS start_datetime,
    dated.value AS end_datetime,
    CAST(NULL AS DOUBLE) AS value,
    CAST(NULL AS VARCHAR) AS unit,
    CAST(NULL AS VARCHAR) AS location,
    item.source_value,
    item.concept_id,
    item.domain_id
FROM mimic3.datetimeevents AS dated
JOIN stage.item AS item ON item.itemid = dated.itemid AND item.domain_id = 'Procedure'
JOIN cdm.person AS person ON person.person_id = dated.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = dated.hadm_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(dated.icustay_id, 0)
LEFT JOIN cdm.provider AS provider ON provider.provider_id = dated.cgid
WHERE dated.value IS NOT NULL AND COALESCE(dated.error, 0) = 0
