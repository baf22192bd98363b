-- What was coded for the bill: diagnoses (tag 8), procedures (9) and CPT codes (10), each with the concepts that its
-- code maps to. The concept's domain, not the source table, decides where a row goes: the ICD-9 code V15.82, history
-- of tobacco use, is an observation. A code without a map stays with the conditions or procedures, as concept 0.
--
-- MIMIC dates neither diagnoses nor ICD-9 procedures: they take the admission's dates. Rows without a code say
-- nothing and are left out, and so are rows without a day: those of an admission that does not exist. What was billed
-- more than once with the same code for the same admission and day is one row, and its quantity says how often.
WITH code AS (
    SELECT
        8 AS tag, row_id, subject_id, hadm_id, CAST(NULL AS TIMESTAMP) AS chartdate, seq_num,
        code_of(TRIM(icd9_code)) AS code, CAST(NULL AS VARCHAR) AS modifier,
        'ICD9CM' AS vocabulary_id, 'Condition' AS home
    FROM mimic3.diagnoses_icd

    UNION ALL

    SELECT
        9 AS tag, row_id, subject_id, hadm_id, CAST(NULL AS TIMESTAMP) AS chartdate, seq_num,
        code_of(TRIM(icd9_code)) AS code, CAST(NULL AS VARCHAR) AS modifier,
        'ICD9Proc' AS vocabulary_id, 'Procedure' AS home
    FROM mimic3.procedures_icd

    UNION ALL

    SELECT
        10 AS tag, row_id, subject_id, hadm_id, chartdate, ticket_id_seq AS seq_num,
        code_of(TRIM(cpt_cd)) AS code, cpt_suffix AS modifier,
        CASE WHEN UPPER(TRIM(cpt_cd)) BETWEEN 'A0000' AND 'V9999' THEN 'HCPCS' ELSE 'CPT4' END AS vocabulary_id,
        'Procedure' AS home
    FROM mimic3.cptevents
),

billed AS (
    SELECT
        code.tag,
        MIN(code.row_id) AS row_id,
        COUNT(*) AS quantity,
        code.subject_id,
        code.hadm_id,
        code.chartdate,
        MIN(code.seq_num) AS seq_num,
        code.code,
        MIN(code.modifier) AS modifier,
        code.vocabulary_id,
        code.home
    FROM code
    WHERE code.code IS NOT NULL
    GROUP BY code.tag, code.subject_id, code.hadm_id, code.chartdate, code.code, code.vocabulary_id, code.home
)

SELECT
    code.tag,
    code.row_id,
    COALESCE(meaning.nth, 0) AS nth,
    code.subject_id,
    visit.visit_occurrence_id,
    COALESCE(code.chartdate, visit.visit_start_datetime) AS start_datetime,
    CASE WHEN code.chartdate IS NULL THEN visit.visit_end_datetime ELSE code.chartdate END AS end_datetime,
    code.seq_num,
    code.code,
    code.modifier,
    code.quantity,
    COALESCE(meaning.source_concept_id, 0) AS source_concept_id,
    COALESCE(meaning.concept_id, 0) AS concept_id,
    CASE
        WHEN meaning.domain_id IN ('Condition', 'Procedure', 'Observation', 'Measurement', 'Drug', 'Device')
            THEN meaning.domain_id
        ELSE code.home
    END AS domain_id
FROM billed AS code
JOIN cdm.person AS person ON person.person_id = code.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = code.hadm_id
LEFT JOIN vocab.source_to_concept AS meaning
    ON meaning.source_vocabulary_id = code.vocabulary_id AND meaning.source_code = code.code
WHERE COALESCE(code.chartdate, visit.visit_start_datetime) IS NOT NULL
