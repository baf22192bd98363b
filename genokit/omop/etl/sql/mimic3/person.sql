-- PERSON: one row a patient. person_id is MIMIC's subject_id, so that a patient is found in both.
--
-- The birth of patients over 89 was moved to about 300 years before their first admission. Their median age is 91.4
-- years, so they are given a year of birth 91 years before that admission, and neither month nor day.
-- Race and ethnicity were asked at each admission, in one field: the latest answer that says something counts.
WITH admitted AS (
    SELECT subject_id, MIN(admittime) AS first_admission
    FROM mimic3.admissions
    GROUP BY subject_id
),

patient AS (
    SELECT
        p.subject_id,
        p.gender,
        p.dob,
        EXTRACT(YEAR FROM a.first_admission) AS first_year,
        COALESCE(EXTRACT(YEAR FROM a.first_admission) - EXTRACT(YEAR FROM p.dob) > 150, FALSE) AS is_shifted
    FROM mimic3.patients AS p
    LEFT JOIN admitted AS a ON a.subject_id = p.subject_id
),

answer AS (
    SELECT
        adm.subject_id,
        adm.ethnicity,
        race.concept_id AS race_concept_id,
        ethnicity.concept_id AS ethnicity_concept_id,
        ROW_NUMBER() OVER (
            PARTITION BY adm.subject_id
            ORDER BY
                CASE WHEN COALESCE(race.concept_id, ethnicity.concept_id) IS NULL THEN 1 ELSE 0 END,
                adm.admittime DESC,
                adm.row_id DESC
        ) AS nth
    FROM mimic3.admissions AS adm
    LEFT JOIN vocab.source_to_concept AS race
        ON race.source_vocabulary_id = 'mimic3 races' AND race.source_code = UPPER(adm.ethnicity) AND race.nth = 0
    LEFT JOIN vocab.source_to_concept AS ethnicity
        ON ethnicity.source_vocabulary_id = 'mimic3 ethnicities'
        AND ethnicity.source_code = UPPER(adm.ethnicity) AND ethnicity.nth = 0
)

SELECT
    patient.subject_id AS person_id,
    COALESCE(gender.concept_id, 0) AS gender_concept_id,
    CASE WHEN patient.is_shifted THEN patient.first_year - 91 ELSE EXTRACT(YEAR FROM patient.dob) END AS year_of_birth,
    CASE WHEN patient.is_shifted THEN NULL ELSE EXTRACT(MONTH FROM patient.dob) END AS month_of_birth,
    CASE WHEN patient.is_shifted THEN NULL ELSE EXTRACT(DAY FROM patient.dob) END AS day_of_birth,
    CASE WHEN patient.is_shifted THEN NULL ELSE patient.dob END AS birth_datetime,
    COALESCE(answer.race_concept_id, 0) AS race_concept_id,
    COALESCE(answer.ethnicity_concept_id, 0) AS ethnicity_concept_id,
    CAST(patient.subject_id AS VARCHAR) AS person_source_value,
    patient.gender AS gender_source_value,
    0 AS gender_source_concept_id,
    answer.ethnicity AS race_source_value,
    0 AS race_source_concept_id,
    answer.ethnicity AS ethnicity_source_value,
    0 AS ethnicity_source_concept_id
FROM patient
LEFT JOIN answer ON answer.subject_id = patient.subject_id AND answer.nth = 1
LEFT JOIN vocab.source_to_concept AS gender
    ON gender.source_vocabulary_id = 'mimic3 genders' AND gender.source_code = UPPER(patient.gender) AND gender.nth = 0
