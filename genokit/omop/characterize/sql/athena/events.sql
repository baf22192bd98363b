-- Records of a table during observation, and the persons with them; the table is read once. `the_...` stands for a name
-- of the table, or null if it lacks the column.
with record as (
    select
        event.person_id,
        the_concept as concept_id,
        the_type as type_id,
        the_unit as unit_id,
        the_value as value_id,
        the_detail as detail_id,
        the_days as days,
        year(the_date) * 100 + month(the_date) as month
    from the_table as event
    join observation_period as seen
        on seen.person_id = event.person_id
        and the_date between seen.observation_period_start_date and seen.observation_period_end_date
),
-- Records by attribute (`part`); and by person, concept and month, which is kind 2.
cell as (
    select
        case
            when grouping(person_id) = 0 then 2
            when grouping(type_id) = 0 then 5
            when grouping(unit_id) = 0 or grouping(days) = 0 then 7
            when grouping(value_id) = 0 then 22
            when grouping(detail_id) = 0 then 23
            when grouping(month) = 0 then 20
            else 1
        end as kind,
        concept_id,
        case
            when grouping(type_id) = 0 then type_id
            when grouping(unit_id) = 0 then unit_id
            when grouping(value_id) = 0 then value_id
            when grouping(detail_id) = 0 then detail_id
            else month
        end as part,
        days,
        person_id,
        month,
        count(*) as n
    from record
    group by grouping sets (
        (concept_id), (concept_id, type_id), (concept_id, unit_id), (concept_id, value_id), (concept_id, detail_id),
        (concept_id, days), (month), (concept_id, person_id, month)
    )
    having grouping(days) = 1 or days is not null
),
life as (
    select
        *,
        cast(floor(month / 1e2) as bigint) as year,
        row_number() over (partition by person_id, concept_id order by month) as nth,
        lag(month) over (partition by person_id, concept_id order by month) as month_before,
        sum(n) over (partition by person_id, concept_id) as records
    from cell
),
whole as (
    select
        life.*,
        person.person_id as known_id,
        person.gender_concept_id as gender_id,
        life.year - person.year_of_birth as age,
        cast(floor((life.year - person.year_of_birth) / 1e1) as bigint) as decile,
        count(case when life.nth = 1 then life.concept_id end) over (partition by life.person_id) as kinds,
        row_number() over (partition by life.person_id order by life.nth) as nth_of_all
    from life
    left join person on person.person_id = life.person_id
)
-- A person counts for a concept in each month, in the first month of a year, and in the first month of all.
select
    the_number + case
        when grouping(kind) = 0 then kind
        when grouping(year) = 0 then 4
        when grouping(age) = 0 then 6
        when grouping(records) = 0 then 91
        else 3
    end as analysis_id,
    case when kind = 20 then part else concept_id end as stratum_1,
    case when kind <> 20 then part when grouping(year) = 0 then year when grouping(age) = 0 then gender_id end
        as stratum_2,
    case when grouping(year) = 0 then gender_id end as stratum_3,
    decile as stratum_4,
    case
        when grouping(kind) = 0 then days
        when grouping(age) = 0 then age
        when grouping(records) = 0 then records
        else kinds
    end as value,
    case
        when grouping(kind) = 0 then sum(case when kind = 2 then 1 else n end)
        when grouping(year) = 0
            then count(case when kind = 2 and (nth = 1 or floor(month_before / 1e2) < year) then known_id end)
        when grouping(age) = 0 then count(case when kind = 2 and nth = 1 then known_id end)
        when grouping(records) = 0 then count(case when kind = 2 and nth = 1 then person_id end)
        else count(case when kind = 2 and nth_of_all = 1 then person_id end)
    end as n
from whole
group by grouping sets (
    (kind, concept_id, part, days), (concept_id, year, gender_id, decile), (concept_id, gender_id, age),
    (concept_id, records), (kinds)
)
