-- The years and months that an observation period touches (116, 117) and fills (109, 110), as numbers from `low` to
-- `high`; months are counted from the year 0. A person whose periods share a year or month counts once.
with span as (
    select
        asked.analysis_id,
        seen.person_id,
        case asked.analysis_id
            when 116 then year_1 when 117 then month_1 when 109 then year_1 + late_year else month_1 + late_month
        end as low,
        case asked.analysis_id
            when 116 then year_2 when 117 then month_2 when 109 then year_2 - short_year else month_2 - short_month
        end as high
    from (
        select
            person_id,
            year(observation_period_start_date) as year_1,
            year(observation_period_end_date) as year_2,
            year(observation_period_start_date) * 12 + month(observation_period_start_date) - 1 as month_1,
            year(observation_period_end_date) * 12 + month(observation_period_end_date) - 1 as month_2,
            case
                when month(observation_period_start_date) = 1 and day(observation_period_start_date) = 1 then 0 else 1
            end as late_year,
            case
                when year(date_add('day', 1, observation_period_end_date)) > year(observation_period_end_date) then 0
                else 1
            end as short_year,
            case when day(observation_period_start_date) = 1 then 0 else 1 end as late_month,
            case when day(date_add('day', 1, observation_period_end_date)) = 1 then 0 else 1 end as short_month
        from observation_period
    ) as seen
    cross join (values 109, 110, 116, 117) as asked (analysis_id)
),
parted as (
    select
        *,
        case
            when low <= max(high) over (
                partition by analysis_id, person_id order by low, high rows between unbounded preceding and 1 preceding
            ) then 0
            else 1
        end as apart
    from span
    where low <= high
),
island as (
    select
        *, sum(apart) over (partition by analysis_id, person_id order by low, high rows unbounded preceding) as island
    from parted
),
whole as (
    select analysis_id, person_id, min(low) as low, max(high) as high
    from island
    group by analysis_id, person_id, island
),
-- The persons present: those who came by then, less those who left.
step as (
    select
        whole.analysis_id,
        case when side.n = 1 then whole.low else whole.high + 1 end as moment,
        person.gender_concept_id as gender_id,
        person.year_of_birth,
        side.n
    from whole
    cross join (values 1, -1) as side (n)
    left join person on person.person_id = whole.person_id and whole.analysis_id = 116
    where whole.analysis_id <> 116 or person.person_id is not null
),
steps as (
    select analysis_id, gender_id, year_of_birth, moment, sum(n) as n
    from step
    group by analysis_id, gender_id, year_of_birth, moment
),
level as (
    select
        analysis_id, gender_id, year_of_birth, moment,
        sum(n) over (
            partition by analysis_id, gender_id, year_of_birth order by moment rows unbounded preceding
        ) as n,
        lead(moment) over (partition by analysis_id, gender_id, year_of_birth order by moment) as until
    from steps
),
there as (
    select level.analysis_id, level.gender_id, level.year_of_birth, moments.moment, level.n
    from (select * from level where n > 0) as level
    -- Trino's sequences have 10,000 members at most: 833 years of months.
    cross join unnest(sequence(level.moment, least(level.until - 1, level.moment + 9999))) as moments (moment)
),
begun as (
    select unit, moment, max(moment) over (partition by unit) as latest
    from (
        select distinct
            units.months as unit,
            year(observation_period_start_date) * units.months
            + case when units.months = 12 then month(observation_period_start_date) - 1 else 0 end as moment
        from observation_period
        cross join (values 1, 12) as units (months)
    ) as moments
),
-- Achilles reports the years and months in which some period begins, and all years up to the last of these.
chosen as (
    select
        there.analysis_id,
        case
            when there.analysis_id in (109, 116) then there.moment
            else cast(floor(there.moment / 12e0) as bigint) * 100 + there.moment % 12 + 1
        end as stratum_1,
        there.gender_id as stratum_2,
        cast(floor((there.moment - there.year_of_birth) / 1e1) as bigint) as stratum_3,
        there.n
    from there
    left join begun
        on begun.unit = case when there.analysis_id in (109, 116) then 1 else 12 end
        and begun.moment = case when there.analysis_id = 109 then begun.latest else there.moment end
        and begun.latest >= there.moment
    where there.analysis_id = 117 or begun.unit is not null
)
select analysis_id, stratum_1, stratum_2, stratum_3, sum(n) as n
from chosen
group by analysis_id, stratum_1, stratum_2, stratum_3
