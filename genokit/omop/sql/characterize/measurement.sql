-- Values of measurements by unit, their ranges, and how they lie in them.
create or replace temp table number as
select
    event.measurement_concept_id as concept_id,
    event.unit_concept_id as unit_id,
    event.value_as_number as value,
    case when event.range_high is not null then event.range_low end as low,
    case when event.range_low is not null then event.range_high end as high,
    event.measurement_date between seen.start_date and seen.end_date as inside,
    count(*) as n
from measurement as event
join observed as seen using (person_id)
where event.value_as_number is not null and event.unit_concept_id is not null
group by all;

delete from number where inside is distinct from true;

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
