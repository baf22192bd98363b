-- Prescriptions with the drug that their NDC maps to, one row a drug.
--
-- An NDC has 11 digits. Some exports lost leading zeros, kept the hyphens or made it a decimal number (182844789.0),
-- all of which is undone; 0 stands for none, and one that a spreadsheet rounded (1.8E+08) is lost. One in seven
-- prescriptions has none: those, and those whose NDC means nothing, go by the drug's name and strength, which public
-- maps know, or by its name alone, which gives the ingredient; else the concept is 0. A quantity of 0 is none. Without
-- a start they start as they end, or with the admission; an end before the start is no end.
WITH dated AS (
    SELECT
        rx.row_id, rx.subject_id, rx.icustay_id, rx.drug, rx.prod_strength, rx.dose_val_rx, rx.dose_unit_rx,
        rx.form_val_disp, rx.route,
        visit.visit_occurrence_id,
        ndc_of(TRIM(rx.ndc)) AS ndc,
        CASE WHEN COALESCE(number_of(rx.ndc), 1) <> 0 THEN TRIM(rx.ndc) END AS written_ndc,
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
    NULLIF(number_of(rx.form_val_disp), 0) AS quantity,
    rx.dose_val_rx || COALESCE(' ' || rx.dose_unit_rx, '') AS sig,
    rx.dose_unit_rx AS dose_unit,
    rx.route,
    COALESCE(NULLIF(rx.written_ndc, '') || ' ', '') || rx.drug || COALESCE(' ' || rx.prod_strength, '') AS source_value,
    COALESCE(meaning.source_concept_id, 0) AS source_concept_id,
    COALESCE(NULLIF(meaning.concept_id, 0), named.concept_id, ingredient.concept_id, 0) AS concept_id,
    CASE
        WHEN meaning.concept_id <> 0 THEN meaning.domain_id
        ELSE COALESCE(named.domain_id, ingredient.domain_id, meaning.domain_id, 'Drug')
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
LEFT JOIN vocab.source_to_concept AS ingredient
    ON ingredient.source_vocabulary_id = 'mimic3 ingredients' AND ingredient.source_code = UPPER(TRIM(rx.drug))
    AND ingredient.nth = 0
WHERE rx.start_datetime IS NOT NULL
