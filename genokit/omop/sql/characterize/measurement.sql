-- Values of measurements by unit, their ranges, and how they lie in them.
create or replace temp table numbers as
select
    event.measurement_concept_id as concept_id,
    event.unit_concept_id as unit_id,
    event.value_as_number as value,
    case when event.range_high is not null then event.range_low end as low,
    case when event.range_low is not null then event.range_high end as high
from measurement as event
join observation_period as seen
    on seen.person_id = event.person_id
    and event.measurement_date between seen.observation_period_start_date and seen.observation_period_end_date
where event.value_as_number is not null and event.unit_concept_id is not null;

insert into described
select 1815, concept_id, unit_id, summary_of(value) from numbers group by all
union all
select 1816, concept_id, unit_id, summary_of(low) from numbers where low is not null group by all
union all
select 1817, concept_id, unit_id, summary_of(high) from numbers where low is not null group by all;

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
    count(*)
from numbers
where low is not null
group by all;

drop table numbers;
