-- The standard concepts that a concept maps to.
select
    c.concept_id, c.concept_name, c.domain_id, c.vocabulary_id, c.concept_class_id, c.standard_concept, c.concept_code,
    r.relationship_id
from concept_relationship as r
join concept as c on c.concept_id = r.concept_id_2
where r.concept_id_1 = $id and r.relationship_id in ('Maps to', 'Maps to value') and r.invalid_reason is null
order by r.relationship_id, c.concept_name, c.concept_id
