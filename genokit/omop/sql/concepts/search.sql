-- Concepts whose name, synonym or code contains most of the substrings, the best match first, then the shortest name.
with pieces as (
    select piece from unnest($pieces) as t(piece)
),
names as (
    select concept_id, lower(concept_name) as name from concept
    union all
    select concept_id, lower(concept_synonym_name) as name from concept_synonym
    union all
    select concept_id, lower(concept_code) as name from concept
),
hits as (
    select n.concept_id, n.name, count(*) as hits
    from names as n
    join pieces as p on strpos(n.name, p.piece) > 0
    group by n.concept_id, n.name
)
select
    c.concept_id, c.concept_name, c.domain_id, c.vocabulary_id, c.concept_class_id, c.standard_concept, c.concept_code
from concept as c
join hits as h on h.concept_id = c.concept_id
where
    h.hits >= $least
    and ($domain is null or lower(c.domain_id) = lower($domain))
    and ($vocabulary is null or lower(c.vocabulary_id) = lower($vocabulary))
    and ($standard is null or (c.standard_concept is not null and c.standard_concept = 'S') = $standard)
order by h.hits desc, length(h.name), case when c.standard_concept = 'S' then 0 else 1 end, c.concept_name
limit 2000
