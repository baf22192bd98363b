-- Records of a table during observation: the table is read once into cells, and each analysis is a sum over cells.
-- `the_...` stands for a name of the table, or null if it lacks the column. Here and elsewhere, observation is checked
-- after the join, because as a join condition it would be slow.
create or replace temp table cell as
select * exclude (inside)
from (
    select
        the_concept as concept_id,
        the_type as type_id,
        the_unit as unit_id,
        the_value as value_id,
        the_detail as detail_id,
        the_date between seen.start_date and seen.end_date as inside,
        min(the_date) as first_date,
        max(the_date) as last_date,
        count(*) as n
    from the_table as event
    join observed as seen using (person_id)
    group by all
)
where inside;

insert into counted
select
    the_number + case
        when grouping(type_id) = 0 then 5
        when grouping(unit_id) = 0 then 7
        when grouping(value_id) = 0 then 22
        when grouping(detail_id) = 0 then 23
        else 1
    end,
    concept_id,
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
    (concept_id), (concept_id, type_id), (concept_id, unit_id), (concept_id, value_id), (concept_id, detail_id)
);

-- Numbers for what persons are counted by: concepts; months from the first; and of each group of persons in each year the
-- decile of age by gender, and the age.
create or replace temp table kind as
select row_number() over () - 1 as number, concept_id
from (select distinct concept_id from cell);

set variable concepts = (select count(*) from kind);
set variable nothing = (select number from kind where concept_id is null);
set variable first = (select min(year(first_date) * 12 + month(first_date) - 1) from cell);
set variable months = (select max(year(last_date) * 12 + month(last_date)) - getvariable('first') from cell);

create or replace temp table aged as
select
    *,
    dense_rank() over (order by known, year, gender_concept_id, decile) - 1 as by_decile,
    dense_rank() over (order by known, gender_concept_id, age) - 1 as by_age
from (
    select *, year - year_of_birth as age, floor((year - year_of_birth) / 10)::integer as decile
    from (select unnest(range(min(year(first_date)), max(year(last_date)) + 1)) as year from cell)
    cross join observed_group
);

set variable deciles = (select max(by_decile) + 1 from aged);
set variable ages = (select max(by_age) + 1 from aged);
