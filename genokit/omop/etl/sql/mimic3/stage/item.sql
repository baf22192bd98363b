-- Every item that a chart, a pump or the laboratory writes values under: one row an itemid, with what it means.
--
-- The kit's own lists come first, then the LOINC code that MIMIC's dictionary of laboratory items names (that needs a
-- download). An item that only the lists know is here too: events do use items that the dictionaries lack.
WITH dictionary AS (
    SELECT itemid, label, CAST(NULL AS VARCHAR) AS loinc_code
    FROM mimic3.d_items
    UNION ALL
    SELECT itemid, label || ' in ' || LOWER(fluid) AS label, loinc_code
    FROM mimic3.d_labitems
    UNION ALL
    SELECT CAST(source_code AS BIGINT) AS itemid, CAST(NULL AS VARCHAR) AS label, CAST(NULL AS VARCHAR) AS loinc_code
    FROM vocab.source_to_concept
    WHERE source_vocabulary_id = 'mimic3 items' AND nth = 0
),

item AS (
    SELECT itemid, MIN(label) AS label, MIN(loinc_code) AS loinc_code
    FROM dictionary
    GROUP BY itemid
)

SELECT
    item.itemid,
    CAST(item.itemid AS VARCHAR) || COALESCE(' ' || item.label, '') AS source_value,
    COALESCE(loinc.source_concept_id, 0) AS source_concept_id,
    COALESCE(own.concept_id, loinc.concept_id, 0) AS concept_id,
    COALESCE(own.domain_id, loinc.domain_id) AS domain_id
FROM item
LEFT JOIN vocab.source_to_concept AS own
    ON own.source_vocabulary_id = 'mimic3 items' AND own.source_code = CAST(item.itemid AS VARCHAR) AND own.nth = 0
LEFT JOIN vocab.source_to_concept AS loinc
    ON loinc.source_vocabulary_id = 'LOINC' AND loinc.source_code = item.loinc_code AND loinc.nth = 0
