-- MICROBIOLOGYEVENTS repeats the specimen for each organism, and the organism for each antibiotic. Here every row
-- knows the first row of its specimen and of its isolate, which stand for them: their row_id becomes the id.
SELECT
    micro.row_id,
    MIN(micro.row_id) OVER (
        PARTITION BY micro.subject_id, micro.hadm_id, micro.chartdate, micro.charttime,
            micro.spec_itemid, micro.spec_type_desc
    ) AS specimen_row,
    MIN(micro.row_id) OVER (
        PARTITION BY micro.subject_id, micro.hadm_id, micro.chartdate, micro.charttime,
            micro.spec_itemid, micro.spec_type_desc, micro.org_itemid, micro.org_name, micro.isolate_num
    ) AS isolate_row,
    micro.subject_id,
    visit.visit_occurrence_id,
    COALESCE(micro.charttime, micro.chartdate) AS taken,
    micro.spec_itemid,
    micro.spec_type_desc,
    micro.org_itemid,
    micro.org_name,
    micro.ab_itemid,
    micro.ab_name,
    micro.dilution_text,
    micro.dilution_comparison,
    micro.dilution_value,
    micro.interpretation
FROM mimic3.microbiologyevents AS micro
JOIN cdm.person AS person ON person.person_id = micro.subject_id
LEFT JOIN cdm.visit_occurrence AS visit ON visit.visit_occurrence_id = micro.hadm_id
WHERE COALESCE(micro.charttime, micro.chartdate) IS NOT NULL
