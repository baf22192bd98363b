-- Records and persons with a concept, alone and with its descendants, as Achilles counts them for ATLAS: sums over the
-- results, so that they reveal nothing more. `above` has pairs of an ancestor and a descendant.
create or replace table achilles_result_concept_count as
with record as (
    select stratum_1::bigint as concept_id, max(count_value) as n
    from achilles_results
    where
        analysis_id in (2, 4, 5, 201, 301, 401, 501, 505, 601, 701, 801, 901, 1001, 1201, 1801, 2101)
        and stratum_1 is not null
    group by all
    union
    select stratum_2::bigint, sum(count_value)::bigint
    from achilles_results
    where analysis_id in (405, 605, 705, 805, 807, 1805, 1807, 2105) and stratum_2 is not null
    group by all
),
person as (
    select stratum_1::bigint as concept_id, max(count_value) as n
    from achilles_results
    where analysis_id in (200, 400, 600, 700, 800, 900, 1000, 1800, 2100) and stratum_1 is not null
    group by all
),
pair as (
    select ancestor_concept_id as ancestor_id, descendant_concept_id as descendant_id from above
    union
    select concept_id, concept_id from record
    union
    select concept_id, concept_id from person
),
records as (
    select ancestor_id, max(own.n) as own, sum(below.n)::bigint as below
    from pair
    left join record as own on own.concept_id = ancestor_id
    join record as below on below.concept_id = descendant_id
    group by ancestor_id
),
persons as (
    select ancestor_id, max(own.n) as own, sum(below.n)::bigint as below
    from pair
    left join person as own on own.concept_id = ancestor_id
    join person as below on below.concept_id = descendant_id
    group by ancestor_id
)
select
    ancestor_id as concept_id,
    coalesce(records.own, 0) as record_count,
    coalesce(records.below, 0) as descendant_record_count,
    coalesce(persons.own, 0) as person_count,
    coalesce(persons.below, 0) as descendant_person_count
from records
full join persons using (ancestor_id)
order by concept_id;
