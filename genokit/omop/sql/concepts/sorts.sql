-- The domains and vocabularies that concepts come from.
select distinct domain_id, vocabulary_id from concept
