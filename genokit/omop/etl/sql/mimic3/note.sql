-- NOTE: the free texts, whole: quotes, commas and newlines are part of what was written.
--
-- Notes that were found to be wrong (iserror) are left out. Many notes have a day only; outpatients' notes have no
-- visit. The note's class is not coded in MIMIC: its category and description are the source value and the title.
SELECT
    event_id(written.row_id, 0) AS note_id,
    person.person_id,
    CAST(COALESCE(written.charttime, written.chartdate) AS DATE) AS note_date,
    written.charttime AS note_datetime,
    concept('EHR note') AS note_type_concept_id,
    0 AS note_class_concept_id,
    written.description AS note_title,
    written.text AS note_text,
    concept('UTF-8') AS encoding_concept_id,
    concept('English') AS language_concept_id,
    provider.provider_id,
    visit.visit_occurrence_id,
    TRIM(written.category) AS note_source_value
FROM mimic3.noteevents AS written
JOIN cdm.person AS person ON person.person_id = written.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = written.hadm_id
LEFT JOIN cdm.provider AS provider ON provider.provider_id = written.cgid
WHERE written.text IS NOT NULL
    AND COALESCE(written.charttime, written.chartdate) IS NOT NULL
    AND COALESCE(written.iserror, '0') <> '1'
