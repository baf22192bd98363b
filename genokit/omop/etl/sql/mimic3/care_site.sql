-- CARE_SITE: the hospital, its intensive care units, its wards (MIMIC only numbers them) and the emergency room.
WITH place AS (
    SELECT 'hospital' AS name
    UNION ALL
    SELECT stay.place AS name FROM stage.stay AS stay GROUP BY stay.place
)

SELECT
    hash_id(place.name) AS care_site_id,
    place.name AS care_site_name,
    COALESCE(unit.concept_id, 0) AS place_of_service_concept_id,
    place.name AS care_site_source_value,
    place.name AS place_of_service_source_value
FROM place
LEFT JOIN vocab.source_to_concept AS unit
    ON unit.source_vocabulary_id = 'mimic3 care_units' AND unit.source_code = UPPER(place.name) AND unit.nth = 0
