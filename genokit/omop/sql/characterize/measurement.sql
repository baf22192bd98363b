-- Values of measurements by unit, their ranges, and how they lie in them: those alike are one row.
create or replace temp table number as
select
    concept_id,
    unit_id,
    value,
    case when high is not null then low end as low,
    case when low is not null then high end as high,
    n
from (
    select
        measurement_concept_id as concept_id,
        unit_concept_id as unit_id,
        value_as_number as value,
        range_low as low,
        range_high as high,
        measurement_date between seen.start_date and seen.end_date as inside,
        count(*) as n
    from measurement
    join observed as seen using (person_id)
    where value_as_number is not null and unit_concept_id is not null
    group by all
)
where inside;

insert into spread
select 1815, concept_id, unit_id, value, sum(n) from number group by all
union all
select 1816, concept_id, unit_id, low, sum(n) from number where low is not null group by all
union all
select 1817, concept_id, unit_id, high, sum(n) from number where low is not null group by all;

insert into counted
select
    1818,
    concept_id,
    unit_id,
    case
        when value < low then 'Below Range Low'
        when value > high then 'Above Range High'
        when value between low and high then 'Within Range'
        else 'Other'
    end,
    null,
    sum(n)
from number
where low is not null
group by all;

drop table number;
