-- The domains and vocabularies of all concepts.
select distinct domain_id, vocabulary_id from concept
