-- Records of a table while their persons are observed: the table is read once into cells, and each analysis is a sum
-- over cells. `the_...` stands for a name of the table's; a table without such a column has null there.
insert into counted
with cell as (
    select
        the_concept as concept_id,
        the_type as type_id,
        the_unit as unit_id,
        the_value as value_id,
        the_detail as detail_id,
        year(the_date) * 100 + month(the_date) as month,
        count(*) as n
    from the_table as event
    join observation_period as seen
        on seen.person_id = event.person_id
        and the_date between seen.observation_period_start_date and seen.observation_period_end_date
    group by all
)
select
    the_number + case
        when grouping(type_id) = 0 then 5
        when grouping(unit_id) = 0 then 7
        when grouping(value_id) = 0 then 22
        when grouping(detail_id) = 0 then 23
        when grouping(month) = 0 then 20
        else 1
    end,
    case when grouping(month) = 0 then month else concept_id end,
    case
        when grouping(type_id) = 0 then type_id
        when grouping(unit_id) = 0 then unit_id
        when grouping(value_id) = 0 then value_id
        when grouping(detail_id) = 0 then detail_id
    end,
    null,
    null,
    sum(n)
from cell
group by grouping sets (
    (concept_id), (concept_id, type_id), (concept_id, unit_id), (concept_id, value_id), (concept_id, detail_id), (month)
);
