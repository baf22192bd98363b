-- Prescriptions with the drug that their NDC maps to, one row a drug.
--
-- An NDC has 11 digits; some exports lost the leading zeros, and 0 stands for none. One in seven prescriptions has
-- none: those, and those whose NDC means nothing, go by the drug's name and strength, which public maps know; else the
-- concept is 0. Without a start they start as they end, or with the admission; an end before the start is no end.
WITH dated AS (
    SELECT
        rx.row_id, rx.subject_id, rx.icustay_id, rx.drug, rx.prod_strength, rx.dose_val_rx, rx.dose_unit_rx,
        rx.form_val_disp, rx.route,
        visit.visit_occurrence_id,
        CASE WHEN number_of(rx.ndc) > 0 THEN TRIM(rx.ndc) END AS ndc,
        COALESCE(rx.startdate, rx.enddate, visit.visit_start_datetime) AS start_datetime,
        rx.enddate
    FROM mimic3.prescriptions AS rx
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = rx.hadm_id
)

SELECT
    rx.row_id,
    COALESCE(meaning.nth, 0) AS nth,
    rx.subject_id,
    rx.visit_occurrence_id,
    detail.visit_detail_id,
    rx.start_datetime,
    CASE WHEN rx.enddate >= rx.start_datetime THEN rx.enddate ELSE rx.start_datetime END AS end_datetime,
    rx.enddate AS verbatim_end,
    number_of(rx.form_val_disp) AS quantity,
    rx.dose_val_rx || COALESCE(' ' || rx.dose_unit_rx, '') AS sig,
    rx.dose_unit_rx AS dose_unit,
    rx.route,
    COALESCE(rx.ndc || ' ', '') || rx.drug || COALESCE(' ' || rx.prod_strength, '') AS source_value,
    COALESCE(meaning.source_concept_id, 0) AS source_concept_id,
    COALESCE(NULLIF(meaning.concept_id, 0), named.concept_id, 0) AS concept_id,
    CASE
        WHEN meaning.concept_id <> 0 THEN meaning.domain_id
        ELSE COALESCE(named.domain_id, meaning.domain_id, 'Drug')
    END AS domain_id
FROM dated AS rx
JOIN cdm.person AS person ON person.person_id = rx.subject_id
LEFT JOIN cdm.visit_detail AS detail ON detail.visit_detail_id = event_id(rx.icustay_id, 0)
LEFT JOIN vocab.source_to_concept AS meaning
    ON meaning.source_vocabulary_id = 'NDC'
    AND meaning.source_code = SUBSTRING('00000000000' || rx.ndc, LENGTH(rx.ndc) + 1)
LEFT JOIN vocab.source_to_concept AS named
    ON named.source_vocabulary_id = 'mimic3 drugs'
    AND named.source_code = UPPER(TRIM(rx.drug || COALESCE(' ' || rx.prod_strength, '')))
    AND named.nth = 0
WHERE rx.start_datetime IS NOT NULL
