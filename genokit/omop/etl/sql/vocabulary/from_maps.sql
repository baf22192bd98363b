-- What the public maps know beyond the kit's own lists (vocab.given), less what a download contradicts: a concept that
-- it has no standard concept for, or whose standard concept is of another domain than the map says. Old maps name
-- concepts that are gone, and a concept of the wrong domain would lie in the wrong table.
SELECT given.source_vocabulary_id, given.code, given.concept_id, given.domain_id, given.meaning
FROM vocab.given AS given
LEFT JOIN vocab.concept AS known ON known.concept_id = given.concept_id
WHERE known.concept_id IS NULL
    OR given.domain_id IN (
        SELECT target.domain_id
        FROM vocab.concept_relationship AS link
        JOIN vocab.concept AS target ON target.concept_id = link.concept_id_2 AND target.standard_concept = 'S'
        WHERE link.concept_id_1 = given.concept_id
            AND link.relationship_id = 'Maps to'
            AND link.invalid_reason IS NULL
    )
