-- DEATH: one row a person who died. The hospital's own time of death counts; where there is none, the hospital's date
-- of death; and for many who died after their discharge the date that the Social Security index supplied.
WITH hospital AS (
    SELECT subject_id, MIN(deathtime) AS deathtime
    FROM mimic3.admissions
    WHERE deathtime IS NOT NULL
    GROUP BY subject_id
)

SELECT
    person.person_id,
    CAST(COALESCE(hospital.deathtime, patient.dod_hosp, patient.dod, patient.dod_ssn) AS DATE) AS death_date,
    COALESCE(hospital.deathtime, patient.dod_hosp, patient.dod, patient.dod_ssn) AS death_datetime,
    CASE
        WHEN hospital.deathtime IS NOT NULL OR patient.dod_hosp IS NOT NULL THEN concept('EHR')
        ELSE concept('US Social Security Death Master File')
    END AS death_type_concept_id
FROM mimic3.patients AS patient
JOIN cdm.person AS person ON person.person_id = patient.subject_id
LEFT JOIN hospital ON hospital.subject_id = patient.subject_id
WHERE COALESCE(hospital.deathtime, patient.dod_hosp, patient.dod, patient.dod_ssn) IS NOT NULL
