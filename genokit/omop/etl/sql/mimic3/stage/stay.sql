-- Where in the hospital a patient was, and when: stays in intensive care (0), places of a bed (1), emergency room (2).
--
-- An intensive care stay that moved between units counts under its first. A row of TRANSFERS for the discharge is no
-- stay. What never ended in the records ends with the admission.
SELECT
    event_id(icu.icustay_id, 0) AS visit_detail_id,
    CAST(NULL AS BIGINT) AS parent_visit_detail_id,
    icu.subject_id,
    icu.hadm_id,
    icu.intime,
    icu.outtime,
    icu.first_careunit AS place,
    CAST(NULL AS VARCHAR) AS came_from
FROM mimic3.icustays AS icu

UNION ALL

SELECT
    event_id(bed.row_id, 1) AS visit_detail_id,
    event_id(bed.icustay_id, 0) AS parent_visit_detail_id,
    bed.subject_id,
    bed.hadm_id,
    bed.intime,
    bed.outtime,
    COALESCE(bed.curr_careunit, 'ward ' || CAST(bed.curr_wardid AS VARCHAR), 'unknown ward') AS place,
    bed.prev_careunit AS came_from
FROM mimic3.transfers AS bed
WHERE COALESCE(bed.eventtype, 'transfer') <> 'discharge' AND bed.intime IS NOT NULL

UNION ALL

SELECT
    event_id(adm.row_id, 2) AS visit_detail_id,
    CAST(NULL AS BIGINT) AS parent_visit_detail_id,
    adm.subject_id,
    adm.hadm_id,
    adm.edregtime AS intime,
    adm.edouttime AS outtime,
    'emergency room' AS place,
    CAST(NULL AS VARCHAR) AS came_from
FROM mimic3.admissions AS adm
WHERE adm.edregtime IS NOT NULL
