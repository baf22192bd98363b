-- Each descendant of a concept, and its parents.
select a.descendant_concept_id as concept_id, c.concept_name, up.ancestor_concept_id as parent_id
from concept_ancestor as a
join concept as c on c.concept_id = a.descendant_concept_id
join concept_ancestor as up
    on up.descendant_concept_id = a.descendant_concept_id and up.min_levels_of_separation = 1
where a.ancestor_concept_id = $id and a.descendant_concept_id <> $id and c.invalid_reason is null
order by c.concept_name, a.descendant_concept_id
