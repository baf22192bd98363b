-- VISIT_DETAIL: the places of a visit. Stays in intensive care, beds and the emergency room (stage/stay.sql).
--
-- A bed in an intensive care unit has the intensive care stay as its parent.
SELECT
    stay.visit_detail_id,
    visit.person_id,
    CASE
        WHEN stay.place = 'emergency room' THEN concept('Emergency room visit')
        ELSE COALESCE(unit.concept_id, concept('Inpatient visit'))
    END AS visit_detail_concept_id,
    CAST(stay.intime AS DATE) AS visit_detail_start_date,
    stay.intime AS visit_detail_start_datetime,
    CAST(
        CASE
            WHEN COALESCE(stay.outtime, visit.visit_end_datetime) >= stay.intime
                THEN COALESCE(stay.outtime, visit.visit_end_datetime)
            ELSE stay.intime
        END AS DATE
    ) AS visit_detail_end_date,
    CASE
        WHEN COALESCE(stay.outtime, visit.visit_end_datetime) >= stay.intime
            THEN COALESCE(stay.outtime, visit.visit_end_datetime)
        ELSE stay.intime
    END AS visit_detail_end_datetime,
    concept('EHR encounter record') AS visit_detail_type_concept_id,
    hash_id(stay.place) AS care_site_id,
    stay.place AS visit_detail_source_value,
    0 AS visit_detail_source_concept_id,
    stay.came_from AS admitted_from_source_value,
    parent.visit_detail_id AS parent_visit_detail_id,
    visit.visit_occurrence_id
FROM stage.stay AS stay
JOIN cdm.visit_occurrence AS visit
    ON visit.visit_occurrence_id = stay.hadm_id AND visit.person_id = stay.subject_id
LEFT JOIN stage.stay AS parent ON parent.visit_detail_id = stay.parent_visit_detail_id
LEFT JOIN vocab.source_to_concept AS unit
    ON unit.source_vocabulary_id = 'mimic3 visits' AND unit.source_code = 'UNIT ' || UPPER(stay.place) AND unit.nth = 0
WHERE stay.intime IS NOT NULL
