-- The valid descendants of a concept, the nearest first.
select
    c.concept_id, c.concept_name, c.domain_id, c.vocabulary_id, c.concept_class_id, c.standard_concept, c.concept_code,
    a.min_levels_of_separation as levels
from concept_ancestor as a
join concept as c on c.concept_id = a.descendant_concept_id
where a.ancestor_concept_id = $id and a.descendant_concept_id <> $id and c.invalid_reason is null
order by a.min_levels_of_separation, c.concept_name, c.concept_id
