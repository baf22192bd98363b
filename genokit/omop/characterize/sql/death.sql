-- Deaths while observed.
with died as (
    select
        death.person_id,
        person.person_id as known_id,
        person.gender_concept_id as gender_id,
        death.cause_concept_id as cause_id,
        death.death_type_concept_id as type_id,
        year(death.death_date) * 100 + month(death.death_date) as month,
        year(death.death_date) as year,
        cast(floor((year(death.death_date) - person.year_of_birth) / 1e1) as bigint) as decile,
        year(death.death_date) - person.year_of_birth as age,
        row_number() over (partition by death.person_id order by death.death_date) as nth
    from death
    join observation_period as seen
        on seen.person_id = death.person_id
        and death.death_date between seen.observation_period_start_date and seen.observation_period_end_date
    left join person on person.person_id = death.person_id
),
cell as (
    select
        case
            when grouping(cause_id) = 0 then 500
            when grouping(month) = 0 then 502
            when grouping(year) = 0 then 504
            when grouping(type_id) = 0 then 505
            else 506
        end as analysis_id,
        cause_id, month, year, gender_id, decile, type_id, age,
        count(*) as records,
        count(distinct person_id) as persons,
        count(distinct known_id) as known,
        count(case when nth = 1 then known_id end) as firsts
    from died
    group by grouping sets ((cause_id), (month), (year, gender_id, decile), (type_id), (gender_id, age))
)
select
    cell.analysis_id + more.one as analysis_id,
    coalesce(cause_id, month, year, type_id, case when cell.analysis_id = 506 then gender_id end) as stratum_1,
    case when cell.analysis_id = 504 then gender_id end as stratum_2,
    decile as stratum_3,
    age as value,
    case cell.analysis_id + more.one
        when 501 then records
        when 504 then known
        when 505 then records
        when 506 then firsts
        else persons
    end as n
from cell
join (values (0), (1)) as more (one) on more.one = 0 or cell.analysis_id = 500
