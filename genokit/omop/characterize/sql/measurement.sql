-- Values of measurements by unit.
insert into described
select 1815, concept_id, unit_id, summary
from (
    select
        measurement_concept_id as concept_id,
        unit_concept_id as unit_id,
        measurement_date between seen.start_date and seen.end_date as inside,
        summary_of(value_as_number) as summary
    from measurement
    join observed as seen using (person_id)
    group by all
)
where inside and unit_id is not null and summary.n > 0;

-- Their ranges, and the position in the range; equal ones are one row.
create or replace temp table ranged as
select * exclude (inside)
from (
    select
        measurement_concept_id as concept_id,
        unit_concept_id as unit_id,
        range_low as low,
        range_high as high,
        (value_as_number > range_high)::integer - (value_as_number < range_low)::integer as place,
        measurement_date between seen.start_date and seen.end_date as inside,
        count(*) as n
    from measurement
    join observed as seen using (person_id)
    group by all
)
where inside and unit_id is not null and place is not null;

insert into spread
select 1816, concept_id, unit_id, low, sum(n) from ranged group by all
union all
select 1817, concept_id, unit_id, high, sum(n) from ranged group by all;

insert into counted
select
    1818,
    concept_id,
    unit_id,
    case place when -1 then 'Below Range Low' when 0 then 'Within Range' else 'Above Range High' end,
    null,
    sum(n)
from ranged
group by all;

drop table ranged;
