-- The concepts of items of a concept set, as in ATLAS: themselves; with descendants, those that are valid; and, if mapped
-- concepts are included, those that map to them.
with mapped as (
    select concept_id from concept where concept_id in $mapped
    union
    select c.concept_id
    from concept_ancestor as a
    join concept as c on c.concept_id = a.descendant_concept_id
    where a.ancestor_concept_id in $mapped_down and c.invalid_reason is null
),
meant as (
    select concept_id from concept where concept_id in $ids
    union
    select c.concept_id
    from concept_ancestor as a
    join concept as c on c.concept_id = a.descendant_concept_id
    where a.ancestor_concept_id in $down and c.invalid_reason is null
    union
    select r.concept_id_1
    from concept_relationship as r
    join mapped as m on m.concept_id = r.concept_id_2
    where r.relationship_id = 'Maps to' and r.invalid_reason is null
)
select
    c.concept_id, c.concept_name, c.domain_id, c.vocabulary_id, c.concept_class_id, c.standard_concept, c.concept_code
from concept as c
join meant as m on m.concept_id = c.concept_id
order by c.concept_name, c.concept_id
