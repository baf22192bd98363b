-- Concepts by id.
select
    concept_id, concept_name, domain_id, vocabulary_id, concept_class_id, standard_concept, concept_code, invalid_reason
from concept
where concept_id in $ids
order by concept_id
