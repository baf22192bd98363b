-- What became of the rows of each source table that were read: carried over into the CDM, or left out for the first
-- reason that holds. The conditions are those of the SQL in mimic3/; the dictionaries say what codes mean and have no
-- rows to carry over.
WITH judged AS (
    SELECT 'patients' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
        END AS reason
    FROM mimic3.patients AS patient
    LEFT JOIN cdm.person AS person ON person.person_id = patient.subject_id
    UNION ALL
    SELECT 'admissions' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
        END AS reason
    FROM mimic3.admissions AS adm
    LEFT JOIN cdm.person AS person ON person.person_id = adm.subject_id
    UNION ALL
    SELECT 'icustays' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN visit.visit_occurrence_id IS NULL THEN 'of no admission'
            WHEN icu.intime IS NULL THEN 'without a time'
        END AS reason
    FROM mimic3.icustays AS icu
    LEFT JOIN cdm.person AS person ON person.person_id = icu.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = icu.hadm_id
        AND visit.person_id = icu.subject_id
    UNION ALL
    SELECT 'transfers' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN bed.eventtype = 'discharge' THEN 'a discharge, which the visit tells'
            WHEN bed.intime IS NULL THEN 'without a time'
            WHEN visit.visit_occurrence_id IS NULL THEN 'of no admission'
        END AS reason
    FROM mimic3.transfers AS bed
    LEFT JOIN cdm.person AS person ON person.person_id = bed.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = bed.hadm_id
        AND visit.person_id = bed.subject_id
    UNION ALL
    SELECT 'callout' AS source_table, CASE
            WHEN wish.row_id IS NOT NULL THEN 'no place in the CDM'
        END AS reason
    FROM mimic3.callout AS wish
    UNION ALL
    SELECT 'services' AS source_table, CASE
            WHEN visit.visit_occurrence_id IS NULL THEN 'of no admission'
        END AS reason
    FROM mimic3.services AS service
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = service.hadm_id
    UNION ALL
    SELECT 'drgcodes' AS source_table, CASE
            WHEN visit.visit_occurrence_id IS NULL THEN 'of no admission'
        END AS reason
    FROM mimic3.drgcodes AS drg
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = drg.hadm_id
    UNION ALL
    SELECT 'labevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN lab.charttime IS NULL THEN 'without a time'
        END AS reason
    FROM mimic3.labevents AS lab
    LEFT JOIN cdm.person AS person ON person.person_id = lab.subject_id
    UNION ALL
    SELECT 'chartevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN chart.charttime IS NULL THEN 'without a time'
            WHEN COALESCE(chart.error, 0) <> 0 THEN 'marked as an error'
            WHEN chart.value IS NULL AND chart.valuenum IS NULL THEN 'without a value'
        END AS reason
    FROM mimic3.chartevents AS chart
    LEFT JOIN cdm.person AS person ON person.person_id = chart.subject_id
    UNION ALL
    SELECT 'outputevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN output.charttime IS NULL THEN 'without a time'
            WHEN COALESCE(output.iserror, 0) <> 0 THEN 'marked as an error'
        END AS reason
    FROM mimic3.outputevents AS output
    LEFT JOIN cdm.person AS person ON person.person_id = output.subject_id
    UNION ALL
    SELECT 'inputevents_mv' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN given.starttime IS NULL THEN 'without a time'
            WHEN COALESCE(given.cancelreason, 0) <> 0 THEN 'cancelled'
            WHEN given.statusdescription = 'Rewritten' THEN 'rewritten'
            WHEN COALESCE(given.amount, 1) > 0 OR given.rate > 0 THEN NULL
            ELSE 'without an amount or a rate above 0'
        END AS reason
    FROM mimic3.inputevents_mv AS given
    LEFT JOIN cdm.person AS person ON person.person_id = given.subject_id
    UNION ALL
    SELECT 'inputevents_cv' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN given.charttime IS NULL THEN 'without a time'
            WHEN given.amount > 0 OR given.rate > 0 THEN NULL
            ELSE 'without an amount or a rate above 0'
        END AS reason
    FROM mimic3.inputevents_cv AS given
    LEFT JOIN cdm.person AS person ON person.person_id = given.subject_id
    UNION ALL
    SELECT 'procedureevents_mv' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN done.starttime IS NULL THEN 'without a time'
            WHEN COALESCE(done.cancelreason, 0) <> 0 THEN 'cancelled'
            WHEN done.statusdescription = 'Rewritten' THEN 'rewritten'
            WHEN kept.id IS NULL THEN 'says the same as another row'
        END AS reason
    FROM mimic3.procedureevents_mv AS done
    LEFT JOIN cdm.person AS person ON person.person_id = done.subject_id
    LEFT JOIN stage.charted_procedure AS kept ON kept.id = event_id(done.row_id, 11)
    UNION ALL
    SELECT 'datetimeevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN dated.charttime IS NULL THEN 'without a time'
            WHEN COALESCE(dated.error, 0) <> 0 THEN 'marked as an error'
            WHEN kept.row_id IS NULL THEN 'says the same as another row'
        END AS reason
    FROM mimic3.datetimeevents AS dated
    LEFT JOIN cdm.person AS person ON person.person_id = dated.subject_id
    LEFT JOIN stage.charted_day AS kept ON kept.row_id = dated.row_id
    UNION ALL
    SELECT 'diagnoses_icd' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN code.icd9_code IS NULL THEN 'without a code'
            WHEN visit.visit_occurrence_id IS NULL THEN 'of no admission, so without a day'
            WHEN kept.row_id IS NULL THEN 'in the quantity of another row'
        END AS reason
    FROM mimic3.diagnoses_icd AS code
    LEFT JOIN cdm.person AS person ON person.person_id = code.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = code.hadm_id
    LEFT JOIN stage.billed AS kept ON kept.row_id = code.row_id AND kept.tag = 8 AND kept.nth = 0
    UNION ALL
    SELECT 'procedures_icd' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN code.icd9_code IS NULL THEN 'without a code'
            WHEN visit.visit_occurrence_id IS NULL THEN 'of no admission, so without a day'
            WHEN kept.row_id IS NULL THEN 'in the quantity of another row'
        END AS reason
    FROM mimic3.procedures_icd AS code
    LEFT JOIN cdm.person AS person ON person.person_id = code.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = code.hadm_id
    LEFT JOIN stage.billed AS kept ON kept.row_id = code.row_id AND kept.tag = 9 AND kept.nth = 0
    UNION ALL
    SELECT 'cptevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN code.cpt_cd IS NULL THEN 'without a code'
            WHEN visit.visit_occurrence_id IS NULL AND code.chartdate IS NULL THEN 'of no admission, so without a day'
            WHEN kept.row_id IS NULL THEN 'in the quantity of another row'
        END AS reason
    FROM mimic3.cptevents AS code
    LEFT JOIN cdm.person AS person ON person.person_id = code.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = code.hadm_id
    LEFT JOIN stage.billed AS kept ON kept.row_id = code.row_id AND kept.tag = 10 AND kept.nth = 0
    UNION ALL
    SELECT 'prescriptions' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN COALESCE(rx.startdate, rx.enddate, visit.visit_start_datetime) IS NULL THEN 'without a day'
            WHEN UPPER(rx.ndc) LIKE '%E+%' THEN 'carried over, without an NDC that was rounded'
        END AS reason
    FROM mimic3.prescriptions AS rx
    LEFT JOIN cdm.person AS person ON person.person_id = rx.subject_id
    LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = rx.hadm_id
    UNION ALL
    SELECT 'microbiologyevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN COALESCE(micro.charttime, micro.chartdate) IS NULL THEN 'without a day'
            WHEN kept.row_id <> kept.isolate_row AND micro.ab_name IS NULL THEN 'says the same as another row'
        END AS reason
    FROM mimic3.microbiologyevents AS micro
    LEFT JOIN cdm.person AS person ON person.person_id = micro.subject_id
    LEFT JOIN stage.microbiology AS kept ON kept.row_id = micro.row_id
    UNION ALL
    SELECT 'noteevents' AS source_table, CASE
            WHEN person.person_id IS NULL THEN 'of no patient'
            WHEN written.text IS NULL THEN 'without a text'
            WHEN COALESCE(written.charttime, written.chartdate) IS NULL THEN 'without a day'
            WHEN written.iserror = '1' THEN 'marked as an error'
        END AS reason
    FROM mimic3.noteevents AS written
    LEFT JOIN cdm.person AS person ON person.person_id = written.subject_id
    UNION ALL
    SELECT 'caregivers' AS source_table, CASE
            WHEN cg.cgid IS NULL THEN 'without an id'
        END AS reason
    FROM mimic3.caregivers AS cg
)

SELECT
    judged.source_table,
    COALESCE(judged.reason, 'carried over') AS became,
    COUNT(*) AS rows
FROM judged
GROUP BY judged.source_table, COALESCE(judged.reason, 'carried over')
