-- SPECIMEN: what was sent for culture; one row a specimen, whatever grew in it.
--
-- Samples for the laboratory are not told apart in MIMIC: their fluid is part of each result's source value.
SELECT
    event_id(micro.row_id, 3) AS specimen_id,
    micro.subject_id AS person_id,
    COALESCE(item.concept_id, 0) AS specimen_concept_id,
    concept('Lab') AS specimen_type_concept_id,
    CAST(micro.taken AS DATE) AS specimen_date,
    micro.taken AS specimen_datetime,
    CAST(micro.row_id AS VARCHAR) AS specimen_source_id,
    CAST(micro.spec_itemid AS VARCHAR) || COALESCE(' ' || micro.spec_type_desc, '') AS specimen_source_value
FROM stage.microbiology AS micro
LEFT JOIN stage.item AS item ON item.itemid = micro.spec_itemid
WHERE micro.row_id = micro.specimen_row
